#!/usr/bin/env bash
# Makes the Debian packages, the RPMs and a tarball in target/packages: `make packages`.
#
#   deploy/packages.sh [ARCH]    amd64 or arm64; default: this machine's
#
# From the environment, all optional:
#   PROGRAMS      the directory of programs that are built already; otherwise they are built
#   XTASK         the program that writes the completions, if it is not in PROGRAMS
#   PACKAGES      where to put the packages; default target/packages
#   VERSION       default: the workspace's
#   ONLY          make only these, of: deb rpm tarball
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
target=${CARGO_TARGET_DIR:-$project/target}

say() { echo "packages: $*" >&2; }

native=$(dpkg --print-architecture)
arch=${1:-$native}
case $arch in
    amd64) rpm_arch=x86_64 triplet=x86_64-linux-gnu ;;
    arm64) rpm_arch=aarch64 triplet=aarch64-linux-gnu ;;
    *) say "there are no packages for $arch; there are for amd64 and arm64"; exit 2 ;;
esac
strip="strip"
[ "$arch" = "$native" ] || strip=$triplet-strip

version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}
packages=$(realpath -m "${PACKAGES:-$target/packages}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What is made of the same commit is the same.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

# CHANGELOG.md as Debian writes it. What is unreleased there is in this version.
changelog() {
    local date
    date=$(date --utc --date="@$SOURCE_DATE_EPOCH" +'%a, %d %b %Y %H:%M:%S +0000')
    awk -v version="$version" -v date="$date" '
        function ends() { if (begun) printf "\n -- procstorm maintainers <procstorm@example.org>  %s\n\n", date }
        /^## / {
            ends(); begun = 1
            # A released version has its date: `## 0.1.0 - 2026-11-24`.
            if ($4) ("date --utc --date=" $4 " +\"%a, %d %b %Y %H:%M:%S +0000\"") | getline date
            printf "procstorm (%s) unstable; urgency=medium\n\n", $2 == "Unreleased" ? version : $2
        }
        begun && /^- / {
            line = "  *"; count = split(substr($0, 3), words, " ")
            for (i = 1; i <= count; i++) {
                if (length(line) + 1 + length(words[i]) > 79) { print line; line = "   " }
                line = line " " words[i]
            }
            print line
        }
        END { ends() }' CHANGELOG.md
}

debian_packages() {
    mkdir "$work/debian"
    cp -r deploy/debian "$work/debian/debian"
    changelog >"$work/debian/debian/changelog"
    # For another architecture, the tools that Build-Depends names are those of this one: -d.
    local foreign=()
    if [ "$arch" != "$native" ]; then
        export CROSS_LIBRARIES=/usr/$triplet/lib
        foreign=(-d "-a$arch" "-Pcross,nocheck")
        # What dpkg-shlibdeps would learn from the other architecture's own packages.
        printf '%s\n' "libc 6 libc6 (>= 2.34)" "libm 6 libc6 (>= 2.34)" \
            "ld-linux-aarch64 1 libc6 (>= 2.34)" "libgcc_s 1 libgcc-s1 (>= 4.2)" \
            >"$work/debian/debian/shlibs.local"
    fi
    (
        cd "$work/debian"
        PROJECT=$project dpkg-buildpackage -b -uc -us "${foreign[@]}" >"$work/log" 2>&1
    ) || { cat "$work/log" >&2; say "dpkg-buildpackage failed"; exit 1; }
    cp "$work"/*.deb "$packages/"
}

rpm_packages() {
    STRIP=$strip rpmbuild -bb --target "$rpm_arch" --define "_topdir $work/rpm" --define "project $project" \
        --define "version_of_it $version" \
        deploy/rpm/procstorm.spec >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; say "rpmbuild failed"; exit 1; }
    find "$work/rpm/RPMS" -name '*.rpm' -exec cp {} "$packages/" \;
}

# For every other Linux: unpacked at /, it is what `make install` would have put there.
tarball() {
    local root=procstorm-$version-linux-$arch
    STRIP=$strip DESTDIR=$work/$root deploy/install.sh
    cp LICENSE CHANGELOG.md "$work/$root/usr/local/share/doc/procstorm-monitoring/"
    tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        -czf "$packages/$root.tar.gz" "$root"
}

if [ -z "${PROGRAMS:-}" ]; then
    if [ "$arch" = "$native" ]; then
        make --no-print-directory release
        PROGRAMS=$target/release
    else
        deploy/cross.sh "$arch"
        PROGRAMS=$target/$rpm_arch-unknown-linux-gnu/release
        # This one runs here.
        ${CARGO:-cargo} build -p xtask
        XTASK=$target/debug/xtask
    fi
fi
PROGRAMS=$(realpath "$PROGRAMS")
XTASK=$(realpath "${XTASK:-$PROGRAMS/xtask}")
export PROGRAMS XTASK

mkdir -p "$packages"
for kind in ${ONLY:-deb rpm tarball}; do
    case $kind in
        deb) debian_packages ;;
        rpm) rpm_packages ;;
        tarball) tarball ;;
        *) say "\"$kind\" is none of: deb rpm tarball"; exit 2 ;;
    esac
done
(cd "$packages" && ls -l -- *"$version"*) >&2
