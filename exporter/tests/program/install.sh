# install.sh PACKAGE: installs and removes it on this machine as it is, of which nothing is
# changed: what is written goes to memory. To be run in a mount namespace of its own.
set -eu
work=$(mktemp -d)
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay "$work/root" \
    -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" || { echo "no overlay"; exit 77; }
cp "$1" "$work/root/tmp/package.deb"
export DEBIAN_FRONTEND=noninteractive

within() { chroot "$work/root" "$@"; }
within dpkg -i /tmp/package.deb >&2
within dpkg -L procstorm-exporter | while read -r path; do
    if [ -f "$work/root$path" ]; then within stat -c '%a %U:%G %n' "$path"; fi
done
within procstorm-exporter --version
ls "$work/root/etc/systemd/system/multi-user.target.wants" | grep procstorm
within dpkg -P procstorm-exporter >&2
echo removed
find "$work/root/usr" "$work/root/etc" -name '*procstorm-exporter*'
