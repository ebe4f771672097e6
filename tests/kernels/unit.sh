#!/usr/bin/env bash
# Boots Debian 12 with the oldest kernel that we support (5.10, of Debian 11) under QEMU, with systemd
# and the exporter's unit and drop-in as they are shipped: it must count in the kernel, and keep no
# right but the one that each scan needs there.  Without LimitMEMLOCK=, which such a kernel asks for,
# it must read /proc.  The other kernels need neither; `make field` tries the drop-in on this machine's.
#
# As root, who alone can make a Debian (tests/field.sh); a minute.
set -Eeuo pipefail
trap 'echo "kernels: FAILED: tests/kernels/unit.sh, line $LINENO: $BASH_COMMAND" >&2' ERR
cd "$(dirname "$0")/../.."
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
work=$target/kernels/unit
log=$target/kernels/unit.log
if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "SKIPPED: the exporter's drop-in on Linux 5.10: needs root and debootstrap"
    exit 0
fi

tests/tools.sh kernels bullseye
tests/field.sh bookworm
"${CARGO:-cargo}" build --quiet -p procstorm-exporter

rm -rf "$work"
mkdir -p "$work/root"
trap 'rm -rf "$work"' EXIT
# The whole system is the guest's initramfs, so it needs no module.  What is large is left out.
tar -C "$target/field/bookworm" --exclude=./boot --exclude=./usr/share/doc --exclude=./usr/share/man \
    --exclude=./usr/share/locale --exclude=./var/cache --exclude=./var/lib/apt \
    --exclude=./usr/bin/prometheus* -cf - . | tar -C "$work/root" -xf -
cd "$work/root"
strip -o usr/bin/procstorm-exporter "$target/debug/procstorm-exporter"
units=etc/systemd/system
mkdir -p "$units/procstorm-exporter.service.d" "$units/multi-user.target.wants"
cp "$OLDPWD/exporter/procstorm-exporter.service" "$units"
cp "$OLDPWD/exporter/procstorm-exporter-bpf.conf" "$units/procstorm-exporter.service.d/bpf.conf"
cat >"$units/attempt.service" <<'END'
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/attempt
TimeoutStartSec=infinity
END
ln -s ../attempt.service "$units/multi-user.target.wants/attempt.service"
cat >attempt <<'END'
#!/bin/bash
exec >/dev/ttyS0 2>&1
unit=procstorm-exporter.service
counts() {
    systemctl restart $unit
    curl -s --retry 5 http://127.0.0.1:9957/metrics | sed -n 's/^procstorm_scan_source/attempt: &/p'
}
counts
grep CapEff "/proc/$(systemctl show --property MainPID --value $unit)/status" | sed 's/^/attempt: /'
mkdir /run/systemd/system/$unit.d
printf '[Service]\nLimitMEMLOCK=0\n' >/run/systemd/system/$unit.d/without.conf
systemctl daemon-reload
counts
journalctl --unit $unit --output cat --no-pager
systemctl poweroff --force --force
END
chmod 755 attempt
ln -sfn /sbin/init init
: >etc/fstab
find . -xdev | cpio --quiet -o -H newc >../tree.cpio
kernel=$(find "$target/tools/kernels/bullseye" -name 'vmlinuz*' -type f | head -n 1)
begun=$SECONDS
timeout 1200 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nographic -no-reboot \
    -nodefaults -serial stdio -kernel "$kernel" -initrd ../tree.cpio \
    -append "console=ttyS0 quiet systemd.show_status=0 systemd.mask=systemd-udev-trigger.service" \
    </dev/null >"$log" || echo "QEMU: status $?" >>"$log"
# CAP_BPF is the 40th.
wanted='attempt: procstorm_scan_source{source="bpf"} 1
attempt: CapEff: 0000008000000000
attempt: procstorm_scan_source{source="procfs"} 1'
found=$(tr -d '\r' <"$log" | tr '\t' ' ' | grep -a '^attempt: ') || true
if [ "$found" != "$wanted" ]; then
    echo "kernels: the exporter's unit on $(basename "$kernel"): wanted"
    echo "$wanted"
    echo "kernels: but $log ends with"
    tail -n 40 "$log"
    exit 1
fi
echo "kernels: the exporter's unit on $(basename "$kernel"): it counts in the kernel, with CAP_BPF alone;" \
    "$((SECONDS - begun)) s"
