#!/bin/bash
# lint.sh: what `make lint` checks beside formatting and clippy. A tool that is not installed is named
# with the command that installs it, and its check is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

skipped() { echo "lint: NOT CHECKED: $1; $2" >&2; }

# The library alone, with no feature that another crate of the workspace turns on.
$cargo check --quiet -p procstorm-toolkit

# The oldest Rust that Cargo.toml promises, in a target directory of its own.
oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
toolchain=$(rustup toolchain list 2>/dev/null | sed -n "s/^\(${oldest//./\\.}[.-][^ ]*\).*/\1/p" | head -n 1 || true)
if [ -n "$toolchain" ]; then
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/msrv \
        rustup run "$toolchain" cargo check --quiet --workspace --all-targets
else
    skipped "no build with Rust $oldest, the oldest that is supported" \
        "rustup toolchain install $oldest --profile minimal"
fi

if command -v cargo-machete >/dev/null; then
    cargo-machete --skip-target-dir . >&2
else
    skipped "unused dependencies" "cargo install cargo-machete"
fi

if command -v shellcheck >/dev/null; then
    git ls-files -z | xargs -0 awk 'FNR == 1 && /^#!.*sh/ { print FILENAME } { nextfile }' |
        xargs shellcheck --external-sources
else
    skipped "shell scripts" "apt-get install shellcheck"
fi

# The roles and the example. `make field` also checks them, with Debian's own versions.
if command -v ansible-lint >/dev/null && command -v yamllint >/dev/null; then
    (cd deploy/ansible && yamllint --strict . && ansible-lint --offline -q) >&2
else
    skipped "the Ansible roles" "apt-get install --no-install-recommends ansible-lint"
fi
