#!/usr/bin/env bash
# Makes the Debian that the field tests boot, and keeps it as target/field/SUITE: a minimal system
# with systemd, Debian's own Prometheus and Alertmanager, and a mail server. Root only.
#
#   tests/field.sh [bookworm|trixie]
#
# What is needed of the network is fetched here: a machine that the tests boot has none.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-bookworm}
field=${CARGO_TARGET_DIR:-target}/field
tree=$field/$suite

packages=systemd,systemd-sysv,dbus,iproute2,procps,curl,acl,attr,sqlite3
packages+=,prometheus,prometheus-alertmanager,opensmtpd,libgcc-s1
# Debian 13 has promtool in a package of its own.
[ "$suite" = bookworm ] || packages+=,promtool

if [ -e "$tree/made" ]; then exit 0; fi
rm -rf "$tree" "$tree.new"
mkdir -p "$field"
echo "field: making a Debian $suite in $tree" >&2
# Debian's debootstrap knows older and newer suites by the same script.
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
debootstrap --variant=minbase --include="$packages" "$suite" "$tree.new" "$mirror" \
    >"$field/$suite.log" 2>&1 || { tail -n 20 "$field/$suite.log" >&2; exit 1; }
rm -rf "$tree.new"/var/cache/apt/archives/*.deb "$tree.new"/var/lib/apt/lists/*
touch "$tree.new/made"
mv "$tree.new" "$tree"
