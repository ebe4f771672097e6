# overlay.sh DIR SCRIPT: runs SCRIPT in this machine's own files, of which nothing is changed: what
# is written goes to memory. DIR is /packages there. To be run in a mount namespace of its own.
# Exits with 77 where there is no overlayfs.
set -eu
work=$(mktemp -d)
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay "$work/root" \
    -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" || { echo "no overlay"; exit 77; }
mkdir "$work/root/packages"
mount --bind "$1" "$work/root/packages"
cp "$2" "$work/root/packages.sh"
export DEBIAN_FRONTEND=noninteractive
exec chroot "$work/root" sh -eu /packages.sh
