#!/usr/bin/env bash
# Changes the modules that decide, one small change at a time, and runs their tests: a change that
# no test notices is a gap in the tests.  Needs cargo-mutants (cargo install cargo-mutants).
#
#   tests/mutants.sh [MODULE...]   the modules of the list below, all unless some are named
#
# Slow: each change builds a crate and its tests.  Nothing here is changed: it works on a copy.
# Changes that no test can notice are in .cargo/mutants.toml, each with its reason.
# Ends with 1 if a change was missed; target/mutants/MODULE/mutants.out says which
# (CARGO_TARGET_DIR names another directory than target).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
$cargo mutants --version >/dev/null 2>&1 ||
    { echo "mutants: cargo install cargo-mutants" >&2; exit 1; }

# A module, its crate, its files, and the tests that are to notice.
modules="
guard      procstorm-remediator remediator/src/steps/kill/guard.rs          --lib
calm       procstorm-remediator remediator/src/steps/kill/calm.rs           --lib
decide     procstorm-remediator remediator/src/policy/decide.rs             --lib --test policy
retention  procstorm-remediator remediator/src/steps/archive/retention.rs   --lib
verdict    procstorm-remediator remediator/src/verdict.rs                    --lib
duration   procstorm-remediator remediator/src/policy/duration.rs           --lib
values     procstorm-remediator remediator/src/policy/values.rs             --lib --test policy
file       procstorm-remediator remediator/src/policy/file.rs               --lib --test policy
agreement  procstorm-remediator remediator/src/commands/agreement/**/*.rs   --lib --test policy
printable  procstorm-remediator remediator/src/printable.rs                 --lib
process    procstorm-processes  lib/processes/src/process.rs                --lib
fold       procstorm-exporter   exporter/src/fold.rs                        --lib
names      procstorm-exporter   exporter/src/names.rs                       --lib
"

known=$(awk 'NF { print $1 }' <<<"$modules")
for module; do
    grep -qx "$module" <<<"$known" ||
        { echo "mutants: no module $module; there are: ${known//$'\n'/ }" >&2; exit 1; }
done

missed=""
while read -r module crate files tests; do
    [ -n "$module" ] || continue
    if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx "$module"; then continue; fi
    echo "mutants: $module"
    mkdir -p "$target/mutants/$module"
    # shellcheck disable=SC2086 # words
    $cargo mutants --package "$crate" --file "$files" --jobs 1 --no-shuffle \
        --output "$target/mutants/$module" -- $tests </dev/null || missed+=" $module"
done <<<"$modules"
[ -z "$missed" ] || { echo "mutants: changes were missed in$missed" >&2; exit 1; }
