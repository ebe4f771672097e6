#!/bin/sh
# Prints the diagnostic log of one of the original scripts, in the format of
# ProcNumChkEmergency.log and ProcNumChkRed.log: at every run, every line at or over the script's
# lowest threshold.
#
#   rules/log.sh emergency|red [HOST [RANGE [END]]]
#
# RANGE is a duration of PromQL (default 1h), END a Unix time or RFC 3339 (default now).
# PROMETHEUS_URL is the address of Prometheus (default http://localhost:9090).  Needs promtool
# and jq.
set -eu
case ${1-} in
    emergency|red) level=$1 ;;
    *)
        echo "usage: [PROMETHEUS_URL=http://HOST:9090] $0 emergency|red [HOST [RANGE [END]]]" >&2
        echo "HOST is the label host in Prometheus; needs promtool and jq" >&2
        exit 2
        ;;
esac
host=${2-moscow} range=${3-1h} end=${4-$(date +%s.%N)}
tools=$(dirname "$0")/../target/tools
PATH="$tools/${PROCSTORM_STACK:-.}/bin:$tools/bin:$PATH"

# A range query of the samples themselves gives one line for each run, with the time of the run.
# The result goes into a variable, since a pipe would hide a failure of promtool.
query() {
    "${PROMTOOL:-promtool}" query instant --format=json --time="$end" \
        "${PROMETHEUS_URL:-http://localhost:9090}" "$1"
}
found=$(query "user_command_class:procstorm_processes:logged{level=\"$level\",host=\"$host\"}[$range]")
# No lines can mean that all was quiet, or that the host was not scraped.
if [ "$found" = '[]' ]; then
    known=$(query "present_over_time(up{job=\"procstorm\",host=\"$host\"}[$range])")
    [ "$known" != '[]' ] || echo "$0: no data about host \"$host\" in this time" >&2
fi
printf '%s\n' "$found" | jq -r '
    def pad: tostring | (4 - length) as $n | if $n > 0 then " " * $n + . else . end;
    # ps shows a control character as "?".
    def shown: (. // "") | gsub("[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]"; "?");
    [.[] | .metric as $of | .values[] | {at: .[0], count: (.[1] | tonumber), $of}]
    | sort_by(.at, .of.user, .of.command)[]
    | "\(.at | floor | todate) \(.count | pad) \(.of.user | shown) \(.of.command | shown)"'
