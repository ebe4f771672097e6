#!/usr/bin/env bash
# Runs `cargo test ...`, then says in one line how many tests passed, and names what was skipped
# and what failed.  Exits as cargo does.
set -uo pipefail
log=$(mktemp)
# The tests write here what they skip: on a terminal it scrolls by.
PROCSTORM_SKIPPED=$(mktemp)
export PROCSTORM_SKIPPED
trap 'rm -f "$log" "$PROCSTORM_SKIPPED"' EXIT
"$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
echo "------------------------------------------------------------------------"
skipped=$(sort -u "$PROCSTORM_SKIPPED")
[ -z "$skipped" ] || echo "$skipped"
grep -aE '^test .* \.\.\. FAILED$' "$log" | sort -u
awk -v skipped="$(grep -c . <<<"$skipped")" '
     /^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "tests: %d passed, %d failed, %d ignored, %d lines of what was skipped\n",
           passed, failed, ignored, skipped }' "$log"
exit "$code"
