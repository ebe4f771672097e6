#!/usr/bin/env bash
# Runs the product on other kernels than this machine's, under QEMU: the oldest that we support and
# those after it, up to the newest that Debian has.
#
#   tests/kernels/run.sh [RELEASE...]   the kernels of bullseye (5.10), bookworm (6.1),
#                                       trixie (6.12) and sid, unless others are named
#
# JOBS names some of tests/kernels/jobs; without it all are run.
#
# A guest is the release's kernel for virtual machines, and an initramfs with this machine's own
# programs, ours, and the tests of tests/kernels/jobs, each at the path that it has here.  /tmp is
# an ext4 file system on a disk.  There is no network, and nothing of this machine's files is
# reached.  Without KVM, so it is slow; needs no rights, but for the tools (see tests/tools.sh).
set -Eeuo pipefail
trap 'echo "kernels: FAILED: tests/kernels/run.sh, line $LINENO: $BASH_COMMAND" >&2' ERR
cd "$(dirname "$0")/../.."
project=$PWD
[ $# -gt 0 ] || set -- bullseye bookworm trixie sid
cargo=${CARGO:-cargo}
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
work=$target/kernels
say() { echo "kernels: $*"; }

tests/tools.sh kernels "$@"

# What the guests run beside our own programs.
programs="bash cat chmod chown cp date dd env false getent grep head id insmod ip ldd ln losetup ls
    mkdir mkfs.ext4 mkfs.btrfs mkfs.xfs mount mv nsenter ps rm sed seq setfacl getfacl setfattr
    getfattr setpriv sh sleep sort stat sync tail tee timeout touch tr true truncate tune2fs umount
    uname unshare sqlite3 mknod chattr fsfreeze"

# copy FILE: puts a file of this machine into the tree, at its path.
copy() {
    [ -e "$tree$1" ] && return 0
    mkdir -p "$tree$(dirname "$1")"
    cp -L "$1" "$tree$1"
}

# Copies a program and the libraries that it is linked with.
copy_program() {
    local path library
    path=$(type -P "$1") || { say "no $1 here, so the guests have none"; return 0; }
    copy "$path"
    copy_libraries "$path"
}
copy_libraries() {
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+' || true); do copy "$library"; done
}

wanted() { case " ${JOBS:-$1} " in *" $1 "*) ;; *) return 1 ;; esac; }

lay_out() {
    local dir name limit test rest executable
    tree=$work/tree
    rm -rf "$tree"
    mkdir -p "$tree"/{usr/bin,usr/sbin,usr/lib,usr/lib64,etc,root,proc,sys,dev,run,tmp,mnt,var/mail}
    for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$tree/$dir"; done
    mkdir -p "$tree/usr/share"
    echo 'root:x:0:0:root:/root:/bin/bash' >"$tree/etc/passwd"
    echo 'root:x:0:' >"$tree/etc/group"
    echo 'passwd: files' >"$tree/etc/nsswitch.conf"
    install -m 755 tests/kernels/init.sh "$tree/init"
    for name in $programs; do copy_program "$name"; done

    say "building"
    local arguments=""
    while read -r name limit test rest; do
        case $name in '' | '#'*) continue ;; esac
        wanted "$name" && arguments+=" --test $test"
    done <tests/kernels/jobs
    $cargo build --quiet --workspace --bins
    # shellcheck disable=SC2086 # words
    $cargo test --quiet --no-run --message-format=json -p procstorm-tests -p procstorm-remediator \
        $arguments >"$work/built.json"
    for executable in "$target"/debug/*; do
        if [ -f "$executable" ] && [ -x "$executable" ]; then bring "$executable"; fi
    done
    while read -r name limit test rest; do
        case $name in '' | '#'*) continue ;; esac
        executable=$(jq -r "select(.executable and .target.name == \"$test\" and .profile.test)
            | .executable" "$work/built.json" | head -n 1)
        wanted "$name" || continue
        [ -n "$executable" ] || { say "there is no test $test"; exit 1; }
        bring "$executable"
        echo "$name $limit $executable $rest --test-threads=1"
    done <tests/kernels/jobs >"$tree/jobs"
    # The tests read what is shipped.
    mkdir -p "$tree$project"
    tar -C "$project" --exclude=./target --exclude=./.git -cf - . | tar -C "$tree$project" -xf -
    (cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/tree.cpio"
}

# Brings a program of ours without its symbols, of which it has ten times its own size.
bring() {
    mkdir -p "$tree$(dirname "$1")"
    strip -o "$tree$1" "$1" 2>/dev/null || return 0
    copy_libraries "$1"
}

# modules RELEASE: makes an archive of the kernel's modules that the guest needs, in their order.
modules() {
    local root=$target/tools/kernels/$1 out=$work/$1.modules version module path count=100
    [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
    version=$(ls "$root/lib/modules")
    # Newer packages lack the lists of what is built in, which is found out by its not being there.
    depmod -b "$root" "$version" 2>/dev/null
    rm -rf "$out"
    mkdir -p "$out/modules"
    for module in virtio_pci virtio_blk ext4 loop overlay fuse btrfs xfs; do
        while read -r _ path; do
            count=$((count + 1))
            case $path in
                *.xz) xz -dc "$path" >"$out/modules/$count-$(basename "$path" .xz)" ;;
                *.ko) cp "$path" "$out/modules/$count-$(basename "$path")" ;;
            esac
        done < <(modprobe -d "$root" -S "$version" --show-depends "$module" 2>/dev/null |
            grep ^insmod || true)
    done
    # A module is listed for each that needs it.
    local seen=" " name
    for path in "$out"/modules/*; do
        name=$(basename "$path")
        name=${name#*-}
        case $seen in *" $name "*) rm "$path" ;; *) seen+="$name " ;; esac
    done
    (cd "$out" && find . | cpio --quiet -o -H newc -R 0:0)
}

# try RELEASE: boots its kernel, and returns whether each job succeeded.
try() {
    local release=$1 log=$work/$1.log kernel begun=$SECONDS
    kernel=$(find "$target/tools/kernels/$release" -name 'vmlinuz*' -type f | head -n 1)
    modules "$release" | cat "$work/tree.cpio" - >"$work/$release.cpio"
    say "$release: booting $(basename "$kernel")"
    # A clock source that is not the TSC is slow, and TCG's is steady enough.
    timeout 5400 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nographic \
        -no-reboot -nodefaults -serial stdio -kernel "$kernel" -initrd "$work/$release.cpio" \
        -drive "file=$work/disk.img,if=virtio,format=raw,snapshot=on" \
        -append "console=ttyS0 quiet panic=5 mitigations=off tsc=reliable clocksource=tsc rdinit=/init" \
        </dev/null 2>&1 | sed -u 's/\r//' | tee "$log" |
        grep --line-buffered -aE '^guest: |^test .*(ok|FAILED)$|^kernel: |panicked|SKIPPED: |FAILED|Kernel panic' || true
    rm -f "$work/$release.cpio"
    local jobs good
    jobs=$(grep -c '' "$work/tree/jobs")
    good=$(grep -acE '^guest: .*: exit 0 after' "$log" || true)
    say "$release: $good of $jobs jobs succeeded, $((SECONDS - begun)) s; all is in $log"
    grep -aoE 'SKIPPED: .*' "$log" | sort -u || true
    [ "$good" = "$jobs" ] && grep -aq '^guest: over' "$log"
}

mkdir -p "$work"
lay_out
rm -f "$work/disk.img"
truncate -s 3G "$work/disk.img"
mke2fs -q -F -t ext4 "$work/disk.img"
bad=""
for release; do try "$release" || bad+=" $release"; done
[ -z "$bad" ] || { say "FAILED on the kernels of$bad"; exit 1; }
say "all holds on the kernels of $*"
