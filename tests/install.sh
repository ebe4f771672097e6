# install.sh PACKAGE [SCRIPT]: installs it, runs SCRIPT as the administrator would, and removes it,
# on this machine as it is, of which nothing is changed: what is written goes to memory. To be run
# in a mount namespace of its own.
set -eu
work=$(mktemp -d)
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay "$work/root" \
    -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" || { echo "no overlay"; exit 77; }
cp "$1" "$work/root/tmp/package.deb"
name=$(dpkg-deb --field "$1" Package)
export DEBIAN_FRONTEND=noninteractive

within() { chroot "$work/root" "$@"; }
# Containers are often told to leave documents out.
within dpkg --path-include='/usr/share/*' -i /tmp/package.deb >&2
within dpkg -L "$name" | while read -r path; do
    if [ -f "$work/root$path" ]; then within stat -c '%a %U:%G %n' "$path"; fi
done
within dpkg-query --show --showformat='${Conffiles}\n' "$name" | sed 's/^ */conffile /; s/ [^ ]*$//'
within "$name" --version
for unit in "$work/root/etc/systemd/system"/*.wants/"$name".service; do
    if [ -L "$unit" ]; then echo "enabled ${unit##*/}"; fi
done
within getent passwd procstorm | sed 's/^/account /' || true
if [ $# -gt 1 ]; then
    cp "$2" "$work/root/tmp/script"
    within sh -eu /tmp/script >&2
    within stat -c 'then %A %U:%G %n' /etc/procstorm/remediator.yml /etc/procstorm/token /var/mail/arc
fi
within dpkg -P "$name" >&2
echo removed
within getent passwd procstorm | sed 's/^/account /' || true
find "$work/root/usr" "$work/root/etc" -name "*$name*"
