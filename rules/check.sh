#!/bin/sh
# Checks the rules, Prometheus' and Alertmanager's configuration and the routes with promtool
# and amtool, and prints how much was checked.
#
#   check.sh [DIR]    DIR contains rules/ and alertmanager/, as /etc/procstorm does after the
#                     package was installed; default: the project's directory
#
# From the environment, all optional:
#   PROMTOOL, AMTOOL   the programs to use; default: those that tests/tools.sh unpacked, or else
#                      those in PATH
#   PROCSTORM_STACK    bookworm, trixie or sid: the unpacked programs of this release of Debian
set -eu
cd "${1:-$(dirname "$0")/..}"
tools=${CARGO_TARGET_DIR:-target}/tools
tool() {
    case ${PROCSTORM_STACK-} in
        '' | path)
            if [ -x "$tools/bin/$1" ]; then echo "$tools/bin/$1"; else echo "$1"; fi ;;
        *) echo "$tools/$PROCSTORM_STACK/bin/$1" ;;
    esac
}
PROMTOOL=${PROMTOOL:-$(tool promtool)}
AMTOOL=${AMTOOL:-$(tool amtool)}

say() { printf 'rules: %s\n' "$*"; }
for program in "$PROMTOOL" "$AMTOOL"; do
    command -v "$program" >/dev/null && continue
    say "FAILED: cannot find $program; 'make rules' fetches it" >&2
    exit 1
done
quietly() { out=$("$@" 2>&1) || { printf '%s\n' "$out" >&2; say "FAILED: $*"; exit 1; }; }

version() { "$1" --version 2>&1 | sed -n '1s/.*version \([^ ]*\).*/\1/p'; }
say "checked with promtool $(version "$PROMTOOL"), amtool $(version "$AMTOOL")"
quietly "$PROMTOOL" check rules rules/procstorm.rules.yml
quietly "$PROMTOOL" check config --lint-fatal rules/prometheus.yml
say "$(grep -c -E '^ *- (\{record|record|alert)' rules/procstorm.rules.yml) rules, prometheus.yml: valid"

quietly "$PROMTOOL" test rules rules/tests/*.test.yml
say "$(cat rules/tests/*.test.yml | grep -c '^  - name:') promtool tests passed, with $(grep -h -o 'eval_time:' rules/tests/*.test.yml | wc -l) assertions"

quietly "$AMTOOL" check-config alertmanager/alertmanager.yml
# Since 0.27 there are two parsers of matchers, and names may be in UTF-8.
if "$AMTOOL" --help 2>&1 | grep -q -- --enable-feature; then
    for parser in classic-mode utf8-strict-mode; do
        quietly "$AMTOOL" --enable-feature=$parser check-config alertmanager/alertmanager.yml
    done
fi
say "alertmanager.yml and its templates: valid"

routes=0
while IFS="$(printf '\t')" read -r labels receivers; do
    case $labels in ''|'#'*) continue ;; esac
    # The labels are split at blanks.
    # shellcheck disable=SC2086
    quietly "$AMTOOL" config routes test --config.file=alertmanager/alertmanager.yml \
        --verify.receivers="$receivers" $labels
    routes=$((routes + 1))
done < alertmanager/routes.tsv
say "$routes rows of routes.tsv reach their receivers"
