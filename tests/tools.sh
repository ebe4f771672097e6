#!/usr/bin/env bash
# Brings the programs that the stack runs on, and says exactly what to install where it cannot.
#
#   tests/tools.sh stack   prometheus, promtool, alertmanager, amtool
#   tests/tools.sh test    the same, and what `make test` calls besides
#   tests/tools.sh packages  what `make packages` calls
#   tests/tools.sh bench   the same as stack, and the peers that `make bench` measures beside us
#
# A program that PATH has is used.  The Prometheus family comes from Debian's own packages,
# downloaded and unpacked below target/tools: nothing is installed, so no service of the system
# is started, and an ordinary user can do it too.  Compilers and small tools, which bring no
# service, are installed with apt where they are missing (as root, or through sudo).
set -euo pipefail

cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/tools
mkdir -p "$tools/bin"
tools=$(cd "$tools" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "tools: $*" >&2; }

# Whether every one of the programs can be run, from PATH or from what was unpacked before.
have() {
    local program
    for program; do
        [ -x "$tools/bin/$program" ] || command -v "$program" >/dev/null || return 1
    done
}

# apt with lists and cache of our own: an ordinary user may not write the system's, and root's
# may be out of date.  The file of sources stays the system's.
own_apt() {
    mkdir -p "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial"
    apt-get -qq -o Dir::State::lists="$tools/apt/lists" -o Dir::Cache="$tools/apt/cache" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User="" "$@"
}

# Downloads packages and unpacks them below target/tools/root.
unpack() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        say "there is no apt here: put the programs of Debian's packages $* on PATH"
        say "($missing), for instance from https://prometheus.io/download"
        exit 1
    fi
    say "fetching Debian's packages of $missing"
    mkdir -p "$tools/deb" "$tools/root"
    rm -f "$tools"/deb/*.deb
    # The system's lists serve as long as they are not out of date.
    (cd "$tools/deb" && apt-get -qq -o APT::Sandbox::User="" download "$@" 2>/dev/null) ||
        { own_apt update && (cd "$tools/deb" && own_apt download "$@"); } || {
            say "cannot download $*: install them, or put their programs on PATH"
            exit 1
        }
    local deb
    for deb in "$tools"/deb/*.deb; do dpkg-deb -x "$deb" "$tools/root"; done
    rm -f "$tools"/deb/*.deb
}

# Names an unpacked program as its own project names it.
link() {
    [ -x "$tools/root/usr/bin/$1" ] || return 0
    ln -sfn "../root/usr/bin/$1" "$tools/bin/${2:-$1}"
}

# An unpacked package's dependencies are not resolved by apt: see that the program starts.
verify() {
    local program path
    for program; do
        path="$tools/bin/$program"
        [ -x "$path" ] || path=$(command -v "$program")
        "$path" --version >/dev/null 2>&1 || {
            say "$path does not start on this machine:"
            "$path" --version >&2 || ldd "$path" >&2 || true
            exit 1
        }
    done
}

stack() {
    missing="prometheus promtool alertmanager amtool"
    # shellcheck disable=SC2086 # a list of words
    if ! have $missing; then
        # Debian calls it prometheus-alertmanager; a link will do where it is installed.
        if have prometheus-alertmanager; then
            ln -sfn "$(command -v prometheus-alertmanager)" "$tools/bin/alertmanager"
        fi
    fi
    # shellcheck disable=SC2086
    if ! have $missing; then
        # The libraries are what Debian's Prometheus takes its pages from.
        unpack prometheus prometheus-alertmanager fonts-glyphicons-halflings libjs-bootstrap4 \
            libjs-d3 libjs-eonasdan-bootstrap-datetimepicker libjs-jquery libjs-jquery-hotkeys \
            libjs-moment libjs-moment-timezone libjs-mustache libjs-popper.js libjs-rickshaw
        link prometheus
        link promtool
        link amtool
        link prometheus-alertmanager alertmanager
    fi
    # shellcheck disable=SC2086
    verify $missing
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
    curl:curl jq:jq"

packages_call="dh:debhelper dpkg-buildpackage:dpkg-dev rpmbuild:rpm"
# Lintian judges the packages.
tests_call+=" $packages_call lintian:lintian"

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

bench() {
    missing="prometheus-node-exporter prometheus-process-exporter"
    # shellcheck disable=SC2086
    if ! have $missing; then
        unpack prometheus-node-exporter prometheus-process-exporter
        link prometheus-node-exporter
        link prometheus-process-exporter
    fi
}

# shellcheck disable=SC2086 # lists of words
case "${1:-stack}" in
    stack) need $build_calls; stack ;;
    test) need $build_calls $tests_call; stack; browser ;;
    bench) need $build_calls; stack; bench ;;
    packages) need $build_calls $packages_call ;;
    *) say "usage: tests/tools.sh [stack|test|bench|packages]"; exit 2 ;;
esac
