#!/usr/bin/env bash
# Fetches the programs that the stack runs on. If it cannot, it prints what to install.
#
#   tests/tools.sh stack [GENERATION]   prometheus, promtool, alertmanager, amtool
#   tests/tools.sh test                 the same, and what `make test` also calls
#   tests/tools.sh packages             what `make packages` calls
#   tests/tools.sh clang                what builds the exporter's BPF program (exporter/bpf/build.sh)
#   tests/tools.sh kernels RELEASE...   QEMU, and the kernels of these releases of Debian
#   tests/tools.sh bench                the same as stack, and the peers that `make bench` measures
#
# A GENERATION is a release of Debian, whose own packages are downloaded and unpacked below
# target/tools/GENERATION.  Nothing is installed, so no service of the system is started, and an
# ordinary user can do it too.  They run on every Debian from 12 on.
#
#   bookworm   Prometheus 2.42, Alertmanager 0.25: the oldest that we support
#   trixie     Prometheus 2.53, Alertmanager 0.28
#   sid        the newest that Debian has, from Prometheus 3 on
#   path       what PATH has
#
# Without one, PROCSTORM_STACK names it, as it does for the tests, `make demo` and `make run`.
# Without that either, the programs of PATH are used, and bookworm's where one of them is missing.
#
# Compilers and small tools, which bring no service, are installed with apt where they are missing
# (as root, or through sudo).  DEBIAN_MIRROR names a mirror other than the system's own.
set -Eeuo pipefail
# No command fails without a word.
trap 'echo "tools: FAILED: tests/tools.sh, line $LINENO: $BASH_COMMAND" >&2' ERR

cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/tools
mkdir -p "$tools/bin"
tools=$(cd "$tools" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "tools: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Whether every one of the programs can be run, from PATH or from what was unpacked before.
have() {
    local program
    for program; do
        [ -x "$tools/bin/$program" ] || command -v "$program" >/dev/null || return 1
    done
}

# The mirror of Debian that this system uses, or else the one for everybody.
mirror() {
    local uris
    # shellcheck disable=SC2016 # apt fills it in
    uris=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null) || uris=""
    uris=$(grep -E '^https?://.*/debian/?$' <<<"$uris" | head -n 1) || uris=""
    echo "${DEBIAN_MIRROR:-${uris:-http://deb.debian.org/debian}}"
}

# release_apt RELEASE COMMAND...: apt-get or apt-cache for one release of Debian, with sources,
# lists and a cache of our own. It neither uses nor changes what the system has installed.
release_apt() {
    local dir=$tools/apt/$1 program=$2
    shift 2
    "$program" -qq -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$dir" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
        -o APT::Default-Release= -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o Debug::NoLocking=1 -o APT::Sandbox::User="" "$@"
}

# The packages that hold a release's kernel for virtual machines.  Newer releases have taken
# kernel and modules out of the image's package.
kernel_packages() {
    local image
    image=$(needed "$1" linux-image-cloud-amd64 | grep '^linux-image-')
    echo "$image"
    needed "$1" "$image" | grep -E '^linux-(binary|modules)-' || true
}
needed() { release_apt "$1" apt-cache depends "$2" | sed -n 's/^ *Depends: //p'; }

# fetch RELEASE DIRECTORY PACKAGE...: downloads the release's packages, and unpacks them there.
# The package `kernel` stands for those of its kernel.
fetch() {
    local release=$1 root=$2 dir=$tools/apt/$1 keys from
    shift 2
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        say "there is no apt here, to fetch $* of Debian's $release"
        fail "put prometheus, promtool, alertmanager and amtool on PATH (they are at" \
            "https://prometheus.io/download), and set PROCSTORM_STACK=path"
    fi
    keys=/usr/share/keyrings/debian-archive-keyring
    if [ -e $keys.gpg ]; then keys=$keys.gpg; else keys=$keys.pgp; fi
    [ -e $keys ] || fail "no $keys: install the package debian-archive-keyring"
    from=$(mirror)
    say "fetching Debian's packages of $release from $from"
    rm -rf "$dir" "$root.new"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/deb" "$root.new"
    : >"$dir/status"
    echo "deb [signed-by=$keys] $from $release main" >"$dir/sources.list"
    # An ordinary user's packages are downloaded all the same where apt cannot change its user.
    release_apt "$release" apt-get update ||
        fail "cannot read the lists of $release from $from (DEBIAN_MIRROR names another mirror)"
    if [ "$*" = kernel ]; then
        # shellcheck disable=SC2046 # a list of words
        set -- $(kernel_packages "$release")
        [ $# -gt 0 ] || fail "$release at $from has no linux-image-cloud-amd64"
    fi
    (cd "$dir/deb" && release_apt "$release" apt-get download "$@") ||
        fail "cannot download $* of $release from $from"
    local deb
    for deb in "$dir"/deb/*.deb; do
        dpkg-deb -x "$deb" "$root.new" || fail "cannot unpack $deb"
    done
    # Only a complete directory has this name.
    rm -rf "$root" "$dir"
    mv "$root.new" "$root"
}

# start PROGRAM PATH: an unpacked package's dependencies are not resolved by apt, so see that the
# program starts.  Says its version.
start() {
    local said
    [ -x "$2" ] || fail "no $1 at ${2:-any place of PATH}"
    said=$("$2" --version 2>&1) || {
        say "$2 does not start on this machine: $said"
        ldd "$2" >&2 || true
        exit 1
    }
    # `prometheus, version 2.42.0+ds (branch: ..., revision: ...)`
    said=${said%%$'\n'*}
    said=${said#*version }
    echo "${said%% *}"
}

# The programs of one Debian.
generation() {
    local release=$1 root=$tools/$1
    local packages="prometheus prometheus-alertmanager"
    # What Debian's Prometheus takes its pages from.
    local pages="fonts-glyphicons-halflings libjs-bootstrap4 libjs-d3
        libjs-eonasdan-bootstrap-datetimepicker libjs-jquery libjs-jquery-hotkeys libjs-moment
        libjs-moment-timezone libjs-mustache libjs-popper.js libjs-rickshaw"
    case $release in
        bookworm) packages+=" $pages" ;;
        trixie) packages+=" promtool $pages" ;;
        sid) packages+=" promtool" ;;
    esac
    if [ ! -x "$root/bin/amtool" ]; then
        # shellcheck disable=SC2086 # a list of words
        fetch "$release" "$root" $packages
        mkdir "$root/bin"
        local program
        for program in prometheus promtool alertmanager amtool; do
            # Debian calls it prometheus-alertmanager.
            local debians=${program/#alert/prometheus-alert}
            # shellcheck disable=SC2086 # a list of words
            [ -x "$root/usr/bin/$debians" ] ||
                fail "Debian's packages of $release hold no /usr/bin/$debians:" $packages
            ln -s "../usr/bin/$debians" "$root/bin/$program"
        done
    fi
}

# Sees that all four start, and says which versions they are.
versions() {
    local name=$1 where program path prometheus alertmanager
    where=$2
    for program in prometheus promtool alertmanager amtool; do
        path=$where/$program
        [ -n "$where" ] || path=$(command -v "$program") || path=""
        case $program in
            prometheus) prometheus=$(start "$program" "$path") ;;
            alertmanager) alertmanager=$(start "$program" "$path") ;;
            *) start "$program" "$path" >/dev/null ;;
        esac
    done
    say "$name: Prometheus $prometheus, Alertmanager $alertmanager"
    # What we say of a generation must be so, whatever the mirror has.
    case $name/$prometheus/$alertmanager in
        bookworm/2.42.*/0.25.* | trixie/2.53.*/0.28.* | sid/[3-9].*/*) ;;
        path/* | bookworm/* | trixie/* | sid/*)
            [ "$name" = path ] || fail "these are not the versions that stand for $name:" \
                "see the head of tests/tools.sh" ;;
    esac
}

stack() {
    local wanted=${1:-${PROCSTORM_STACK:-}} four="prometheus promtool alertmanager amtool"
    case $wanted in
        bookworm | trixie | sid)
            generation "$wanted"
            versions "$wanted" "$tools/$wanted/bin"
            return ;;
        "" | path) ;;
        *) fail "no generation \"$wanted\": bookworm, trixie, sid or path" ;;
    esac
    # Debian's name for it; a link will do.
    if ! have alertmanager && command -v prometheus-alertmanager >/dev/null; then
        ln -sfn "$(command -v prometheus-alertmanager)" "$tools/bin/alertmanager"
    fi
    # shellcheck disable=SC2086 # a list of words
    if [ -z "$wanted" ] && ! have $four; then
        generation bookworm
        local program
        for program in $four; do ln -sfn "../bookworm/bin/$program" "$tools/bin/$program"; done
    fi
    export PATH="$tools/bin:$PATH"
    versions path ""
}

# Installs Debian packages, none of which brings a service: as root, or through sudo.
install() {
    local as_root=""
    if [ "$(id -u)" != 0 ]; then
        # Without a terminal nobody could type sudo's password.
        if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            as_root="sudo"
        fi
    fi
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && [ -z "$as_root" ]; }; then
        say "these packages are missing: $*"
        say "install them as root: apt-get install --no-install-recommends $*"
        exit 1
    fi
    say "installing $*"
    local apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq"
    $apt install -y --no-install-recommends "$@" >/dev/null 2>&1 || {
        # The lists may be missing or out of date.
        $apt update && $apt install -y --no-install-recommends "$@"
    } >&2
}

# Sees that programs are there, each given as `program:package` (of Debian).
need() {
    local pair absent=""
    for pair; do
        command -v "${pair%%:*}" >/dev/null || absent+=" ${pair##*:}"
    done
    [ -n "$absent" ] || return 0
    # shellcheck disable=SC2046,SC2086 # lists of words
    install $(tr ' ' '\n' <<<"$absent" | sed /^$/d | sort -u)
}

# rustc links with cc, and SQLite's and ring's sources are C.
build_calls="cc:build-essential make:make"
tests_call="ps:procps unshare:util-linux nsenter:util-linux setpriv:util-linux
    fsfreeze:util-linux getfacl:acl setfacl:acl setfattr:attr mkfs.ext4:e2fsprogs
    mkfs.btrfs:btrfs-progs mkfs.xfs:xfsprogs mandoc:mandoc sqlite3:sqlite3 openssl:openssl
    faketime:faketime
    curl:curl jq:jq"

packages_call="dh:debhelper dpkg-buildpackage:dpkg-dev rpmbuild:rpm"
# Lintian judges the packages.
tests_call+=" $packages_call lintian:lintian"

# What the guests run is taken from the machine; see tests/kernels/.
kernels_call="qemu-system-x86_64:qemu-system-x86 cpio:cpio depmod:kmod xz:xz-utils strip:binutils
    mke2fs:e2fsprogs"

# What the status pages are looked at with. Their test says aloud what it had to leave out.
axe_core=4.14.1
axe_core_sum=e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
browser() {
    if [ "$(id -u)" = 0 ]; then
        need chromium:chromium
    elif ! have chromium; then
        say "no chromium: the status pages are not looked at (apt-get install chromium)"
    fi
    [ ! -f "$tools/axe/axe.min.js" ] || return 0
    # Only where npm is there already: it is a thousand packages, for one file.
    if ! have npm; then
        say "no npm: the status pages are looked at without axe-core"
        return 0
    fi
    mkdir -p "$tools/axe"
    (
        cd "$tools/axe" && npm pack --silent "axe-core@$axe_core" >/dev/null &&
            echo "$axe_core_sum  axe-core-$axe_core.tgz" | sha256sum --check --quiet &&
            tar -xzf "axe-core-$axe_core.tgz" --strip-components=1 package/axe.min.js package/LICENSE
    ) || say "axe-core cannot be had: the status pages are looked at without it"
    rm -f "$tools/axe/axe-core-$axe_core.tgz"
}

# A real mail server, for the test that ends its sessions. It runs in this directory laid over the
# machine's own, so that its libraries are here, too, as far as a machine may lack them.
mail_server() {
    [ "$(id -u)" = 0 ] || return 0
    [ -x "$tools/dovecot/usr/sbin/dovecot" ] || fetch bookworm "$tools/dovecot" dovecot-core \
        dovecot-imapd libexttextcat-2.0-0 libicu72 liblua5.3-0 libsodium23 libstemmer0d libunwind8 \
        libargon2-1 libwrap0 libapparmor1
}

# What builds the exporter's BPF program: the clang of Debian 12, on newer Debians too, since
# another gives other instructions.  230 MB with its libraries, of which only those of every Debian
# with apt are not fetched.
clang() {
    local program programs="clang llvm-strip llvm-objcopy" root=$tools/clang
    if have clang-14 llvm-strip-14 llvm-objcopy-14; then return 0; fi
    if ! command -v apt-get >/dev/null; then
        say "no apt and no clang-14, llvm-strip-14 and llvm-objcopy-14: the exporter's BPF program is" \
            "not built and compared"
        return 0
    fi
    fetch bookworm "$root" clang-14 llvm-14 libbsd0 libclang-cpp14 libedit2 libffi8 libicu72 \
        libllvm14 libmd0 libtinfo6 libxml2 libz3-4
    # LLVM has a hundred programs.
    find "$root/usr/lib/llvm-14" ! -type d ! -path '*/bin/clang' ! -path '*/bin/llvm-strip' \
        ! -path '*/bin/llvm-objcopy' ! -name 'libclang-cpp.so*' -delete
    for program in $programs; do
        cat >"$tools/bin/$program-14" <<EOF
#!/bin/sh
root=\${0%/*}/../clang/usr/lib
LD_LIBRARY_PATH=\$(echo "\$root"/*-linux-gnu) exec "\$root/llvm-14/bin/$program" "\$@"
EOF
        chmod 755 "$tools/bin/$program-14"
        start "$program-14" "$tools/bin/$program-14" >/dev/null
    done
}

# A kernel is below target/tools/kernels/RELEASE.
kernels() {
    [ "$(uname -m)" = x86_64 ] || fail "the kernels that are tried are those of x86_64"
    local release
    mkdir -p "$tools/kernels"
    for release; do
        [ -d "$tools/kernels/$release" ] || fetch "$release" "$tools/kernels/$release" kernel
    done
}

# The Debians that the field tests boot. Only root can make and boot them; the tests say aloud what
# they had to leave out.
field() {
    if [ "$(id -u)" != 0 ]; then
        say "not root: no Debian is booted, and the packages are not tried on one"
        return 0
    fi
    need debootstrap:debootstrap systemd-nspawn:systemd-container ip:iproute2 nsenter:util-linux
    local suite
    for suite in bookworm trixie; do
        tests/field.sh "$suite" || say "no Debian $suite could be made: it is not booted"
    done
}

bench() {
    local program missing="prometheus-node-exporter prometheus-process-exporter"
    # shellcheck disable=SC2086 # a list of words
    if ! have $missing; then
        # shellcheck disable=SC2086 # a list of words
        fetch bookworm "$tools/peers" $missing
        for program in $missing; do ln -sfn "../peers/usr/bin/$program" "$tools/bin/$program"; done
    fi
}

# shellcheck disable=SC2086 # lists of words
case "${1:-stack}" in
    stack) need $build_calls; stack "${2:-}" ;;
    test) need $build_calls $tests_call; stack; browser; mail_server; clang; field ;;
    bench) need $build_calls; stack; bench ;;
    packages) need $build_calls $packages_call ;;
    clang) clang ;;
    kernels) shift; need $build_calls $tests_call $kernels_call; kernels "$@" ;;
    *)
        say "usage: tests/tools.sh [stack [bookworm|trixie|sid|path]|test|bench|packages|clang|kernels RELEASE...]"
        exit 2
        ;;
esac
