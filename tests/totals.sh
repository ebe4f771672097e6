#!/usr/bin/env bash
# Runs `cargo test ...`, then says in one line how many tests passed, and names what was skipped
# and what failed.  Exits as cargo does.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
echo "------------------------------------------------------------------------"
grep -aoE 'SKIPPED: .*' "$log" | sort -u
grep -aE '^test .* \.\.\. FAILED$' "$log" | sort -u
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "tests: %d passed, %d failed, %d ignored\n", passed, failed, ignored }' "$log"
exit "$code"
