#!/bin/bash
# The first process of a guest: loads what the kernel keeps in modules, makes the places that
# programs expect, runs each of /jobs, and switches the machine off.
#
# A line of /jobs: a name, the seconds that it may take, the program with its arguments.
export PATH=/usr/bin:/usr/sbin HOME=/root LANG=C RUST_BACKTRACE=0
# Nothing else runs here: no test needs a world apart, and its output is seen.
export PROCSTORM_TEST_INSIDE=1
# A machine that is this slow is not killed 200 times in bearable time.
export PROCSTORM_KILLS=5
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
for module in /modules/*.ko; do insmod "$module"; done
for _ in {1..100}; do
    [ -b /dev/vda ] && break
    sleep 0.1
done
mount -t ext4 /dev/vda /tmp && chmod 1777 /tmp
ip link set lo up
echo "guest: Linux $(uname -r), clock source $(</sys/devices/system/clocksource/clocksource0/current_clocksource), Landlock $(grep -c landlock /sys/kernel/security/lsm)"
while read -r name limit command; do
    begun=$SECONDS
    echo "guest: $name"
    # shellcheck disable=SC2086 # words
    timeout --kill-after=10 "$limit" $command </dev/null
    code=$?
    echo "guest: $name: exit $code after $((SECONDS - begun)) s"
done </jobs
echo "guest: over"
sync
echo o >/proc/sysrq-trigger
sleep 60
