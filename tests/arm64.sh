#!/usr/bin/env bash
# Cross-builds the packages for arm64, and runs the programs from them under qemu-user: `make
# field-arm64`. Needs qemu-user-static.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v qemu-aarch64-static >/dev/null ||
    { echo "arm64: apt-get install qemu-user-static" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PACKAGES=$work deploy/packages.sh arm64
for deb in "$work"/*_arm64.deb; do dpkg-deb -x "$deb" "$work/root"; done
run() { qemu-aarch64-static -L /usr/aarch64-linux-gnu "$@"; }
run "$work/root/usr/bin/procstorm-remediator" --version
run "$work/root/usr/bin/procstorm-remediator" --check --config.file remediator/remediator.yml >/dev/null
shown=$(run "$work/root/usr/bin/procstorm-exporter" --once)
grep -q '^procstorm_processes{' <<<"$shown"
echo "arm64: $(grep -c '^procstorm_processes{' <<<"$shown") series counted by the arm64 exporter"
