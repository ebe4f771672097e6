#!/usr/bin/env bash
# Builds the two daemons for arm64 on an amd64 Debian 12, into
# target/aarch64-unknown-linux-gnu/release: `make packages ARCH=arm64` calls it.
#
# rustup's compiler serves if it has the target (rustup target add aarch64-unknown-linux-gnu).
# Otherwise Debian's own is unpacked below target/tools/cross: rustc-web, which has the standard
# library for both. The two compilers' standard libraries do not mix.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cross=$target/tools/cross
triple=aarch64-unknown-linux-gnu

say() { echo "cross: $*" >&2; }
if [ "${1:-}" != arm64 ] || [ "$(dpkg --print-architecture)" != amd64 ]; then
    say "only arm64 is built on another architecture, and only on amd64"
    exit 1
fi
command -v aarch64-linux-gnu-gcc >/dev/null || {
    [ "$(id -u)" = 0 ] || { say "run as root: apt-get install gcc-aarch64-linux-gnu"; exit 1; }
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null
}

if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$triple" ]; then
    if [ ! -x "$cross/rustc" ]; then
        say "fetching Debian's rustc-web"
        mkdir -p "$cross/lists/partial" "$cross/cache/archives/partial" "$cross/deb" "$cross/root"
        apt=(apt-get -qq -o "Dir::State::lists=$cross/lists" -o "Dir::Cache=$cross/cache"
            -o Debug::NoLocking=1 -o APT::Sandbox::User= -o APT::Architectures::=amd64
            -o APT::Architectures::=arm64)
        "${apt[@]}" update
        version=$(apt-cache -o "Dir::State::lists=$cross/lists" -o "Dir::Cache=$cross/cache" \
            show rustc-web | sed -n 's/^Version: \([0-9]*\.[0-9]*\).*/\1/p' | sort -V | tail -n 1)
        (cd "$cross/deb" && "${apt[@]}" download rustc-web "libstd-rust-web-$version" \
            libstd-rust-web-dev libstd-rust-web-dev:arm64)
        for deb in "$cross"/deb/*.deb; do dpkg-deb -x "$deb" "$cross/root"; done
        rm -rf "$cross/deb" "$cross/lists" "$cross/cache"
        cat >"$cross/rustc" <<END
#!/bin/sh
LD_LIBRARY_PATH=$cross/root/usr/lib:$cross/root/usr/lib/x86_64-linux-gnu exec \
    $cross/root/usr/bin/rustc --sysroot $cross/root/usr "\$@"
END
        chmod +x "$cross/rustc"
    fi
    export RUSTC=$cross/rustc
fi
"${RUSTC:-rustc}" --version >&2
CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="" \
    ${CARGO:-cargo} build --release --target "$triple" -p procstorm-exporter -p procstorm-remediator
