#!/usr/bin/env bash
# Makes the Debians that the field tests boot, and keeps each as target/field/NAME.  Root only.
#
#   tests/field.sh [bookworm|trixie]   a minimal system with systemd, Debian's own Prometheus and
#                                      Alertmanager, and a mail server
#   tests/field.sh servers             bookworm with Dovecot, Postfix, procmail, php-fpm, Apache, sshd
#                                      and Python; and the package of Courier, which cannot be
#                                      installed beside Dovecot
#   tests/field.sh ansible             bookworm with Debian's Ansible and ansible-lint, sshd and Python
#
# All that needs the network is fetched here: a machine that the tests boot has none.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-bookworm}
field=${CARGO_TARGET_DIR:-target}/field
tree=$field/$name
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# What bookworm gets for the tests of other people's servers, and for those of the Ansible roles.  A
# tree that was made with another list is made again.
servers=
[ "$name" != ansible ] ||
    servers='ansible-core ansible-lint openssh-server openssh-client python3 python3-apt'
[ "$name" != servers ] ||
    servers='dovecot-core dovecot-imapd postfix procmail php8.2-fpm apache2 apache2-suexec-pristine openssh-server openssh-client python3-minimal'
if [ -e "$tree/made" ] && [ "$(cat "$tree/made")" = "$servers" ]; then exit 0; fi
mkdir -p "$field"

# Makes a minimal Debian.  debootstrap knows older and newer suites by the same script.
minimal() {
    local packages=systemd,systemd-sysv,dbus,iproute2,procps,curl,acl,attr,sqlite3
    packages+=,prometheus,prometheus-alertmanager,opensmtpd,ca-certificates,libgcc-s1
    # Debian 13 has promtool in a package of its own.
    [ "$name" = bookworm ] || packages+=,promtool
    debootstrap --variant=minbase --include="$packages" "$name" "$tree.new" "$mirror"
}

# Adds packages to a copy of bookworm, and runs the commands given.  No service is started:
# policy-rc.d forbids it.
more() {
    "$0" bookworm
    cp -a --reflink=auto "$field/bookworm" "$tree.new"
    rm "$tree.new/made"
    printf '#!/bin/sh\nexit 101\n' >"$tree.new/usr/sbin/policy-rc.d"
    chmod 755 "$tree.new/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$tree.new/etc/resolv.conf"
    # shellcheck disable=SC2016 # expanded in there
    unshare --mount --propagation private sh -euc '
        mount -t proc proc "$0/proc"
        mount -t tmpfs tmpfs "$0/tmp"
        exec chroot "$0" env DEBIAN_FRONTEND=noninteractive sh -euxc "
            apt-get -q update
            apt-get -q -y --no-install-recommends install $1
            $2
            apt-get clean
            rm /usr/sbin/policy-rc.d"
    ' "$tree.new" "$servers" "$1"
}

servers() {
    # What Courier also needs, and its own packages for the machine that has them instead of Dovecot.
    # Apache and sshd are those that only one test needs.
    more 'apt-get -q -y --no-install-recommends install courier-base gamin
        mkdir /root/courier
        cd /root/courier
        apt-get -q download courier-imap
        systemctl disable apache2 ssh'
}

ansible() { more :; }

rm -rf "$tree" "$tree.new"
echo "field: making a Debian for $name in $tree" >&2
case $name in servers | ansible) make=$name ;; *) make=minimal ;; esac
# In a subshell that ends at the first failure, which a condition would switch off.
set +e
(set -e; $make) >"$field/$name.log" 2>&1
made=$?
set -e
[ $made = 0 ] || { tail -n 20 "$field/$name.log" >&2; exit 1; }
rm -rf "$tree.new"/var/cache/apt/archives/*.deb "$tree.new"/var/lib/apt/lists/*
printf %s "$servers" >"$tree.new/made"
mv "$tree.new" "$tree"
