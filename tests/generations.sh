#!/usr/bin/env bash
# Runs what must hold with every Prometheus and Alertmanager on newer ones than the oldest that we
# support: the rules' and routes' own checks, the essential tests of the whole stack, and the demo.
#
#   tests/generations.sh [GENERATION...]   trixie and sid, unless others of tests/tools.sh are named
#
# About two and a half minutes each, most of it spent waiting.  All tests of the stack run on the
# oldest with `make unit`.
set -Eeuo pipefail
trap 'echo "generations: FAILED: tests/generations.sh, line $LINENO: $BASH_COMMAND" >&2' ERR
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- trixie sid
cargo=${CARGO:-cargo}

# The whole way, mails and outcomes, silences, names, the scripts' own judgement, the diagnostic
# log, and every query of the dashboard.
essential="cluster:: dashboard:: diagnostic_log:: mail:: names:: oracle:: storm:: strangers::"

for generation; do
    begun=$SECONDS
    tests/tools.sh stack "$generation"
    export PROCSTORM_STACK=$generation
    rules/check.sh
    # shellcheck disable=SC2086 # words
    tests/totals.sh $cargo test --quiet --no-fail-fast -p procstorm-tests --test e2e --test rules -- $essential
    # shellcheck disable=SC2086
    $cargo run --quiet -p procstorm-tests --bin demo
    echo "generations: $generation: all holds ($((SECONDS - begun)) s)"
done
