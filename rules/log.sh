#!/bin/sh
# Prints the diagnostic log of one of the original scripts, as ProcNumChkEmergency.log and
# ProcNumChkRed.log held it: every line at or over the script's low mark, at every run.
#
#   rules/log.sh emergency|red [HOST [RANGE [END]]]
#
# RANGE is a duration of PromQL (default 1h), END a Unix time or RFC 3339 (default now).
# PROMETHEUS_URL is http://localhost:9090 unless set.  Needs promtool and jq.
set -eu
case ${1-} in
    emergency|red) level=$1 ;;
    *)
        echo "usage: [PROMETHEUS_URL=http://HOST:9090] $0 emergency|red [HOST [RANGE [END]]]" >&2
        echo "needs promtool and jq; HOST is a host's label in Prometheus" >&2
        exit 2
        ;;
esac
host=${2-moscow} range=${3-1h} end=${4-$(date +%s.%N)}
tools=$(dirname "$0")/../target/tools
PATH="$tools/${PROCSTORM_STACK:-.}/bin:$tools/bin:$PATH"

# The samples themselves and not a value every so many seconds: a line for each run, at the
# run's own time.
# In a variable, as a pipe would end well where promtool fails.
query() {
    "${PROMTOOL:-promtool}" query instant --format=json --time="$end" \
        "${PROMETHEUS_URL:-http://localhost:9090}" "$1"
}
found=$(query "user_command_class:procstorm_processes:logged{level=\"$level\",host=\"$host\"}[$range]")
# No line may mean that all was quiet, or that nobody watched.
if [ "$found" = '[]' ]; then
    known=$(query "present_over_time(up{job=\"procstorm\",host=\"$host\"}[$range])")
    [ "$known" != '[]' ] || echo "$0: nothing is known of host \"$host\" in this time" >&2
fi
printf '%s\n' "$found" | jq -r '
    def pad: tostring | (4 - length) as $n | if $n > 0 then " " * $n + . else . end;
    # ps shows a control character as "?".
    def shown: (. // "") | gsub("[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]"; "?");
    [.[] | .metric as $of | .values[] | {at: .[0], count: (.[1] | tonumber), $of}]
    | sort_by(.at, .of.user, .of.command)[]
    | "\(.at | floor | todate) \(.count | pad) \(.of.user | shown) \(.of.command | shown)"'
