#!/bin/sh
# Prints rules in which no alert about processes reads what another rule has recorded, except the
# table of thresholds.
#
#   flat.sh [FILE]    FILE is a rules file like procstorm.rules.yml, which is the default
#
# Prometheus evaluates the rules of a group in order, and each sees what those before it recorded.
# VictoriaMetrics' vmalert writes each result to the storage first, which shows it only later: the
# shipped chain of four rules notifies a storm minutes late there (alertmanager/INTEGRATIONS.md).
# The alerts are the same, but cost more to evaluate. The recording rules stay, for the dashboard
# and for log.sh. rules/check.sh runs all of promtool's tests on this form too.
#
# After a change of procstorm.rules.yml, run it again.
set -eu
file=${1:-$(dirname "$0")/procstorm.rules.yml}
[ -r "$file" ] || { echo "flat.sh: cannot read $file" >&2; exit 1; }
# The file is read twice: for the recorded expressions, and to print it.
awk '
function fail(what) {
    printf "flat.sh: %s:%d: %s\n", FILENAME, FNR, what > "/dev/stderr"
    failed = 1
    exit 1
}
function trimmed(text) { gsub(/^[ \t]+|[ \t]+$/, "", text); return text }

# How long the string is that begins the text; 0 if none does.
function string_length(text,    quote, at, char) {
    quote = substr(text, 1, 1)
    if (quote != "\"" && quote != "'\''" && quote != "`") return 0
    for (at = 2; at <= length(text); at++) {
        char = substr(text, at, 1)
        if (char == "\\" && quote != "`") at++
        else if (char == quote) return at
    }
    fail("a string does not end: " text)
}

# How long the selector is that begins the text, `{...}`; 0 if none does.
function selector_length(text,    at, skip) {
    if (substr(text, 1, 1) != "{") return 0
    for (at = 2; at <= length(text); at++) {
        if (substr(text, at, 1) == "}") return at
        skip = string_length(substr(text, at))
        if (skip) at += skip - 1
    }
    fail("a selector does not end: " text)
}

# The expression with each recorded series replaced by what records it.
function flat(text, depth,    out, skip, name) {
    if (depth > 20) fail("a rule reads itself")
    out = ""
    while (text != "") {
        if ((skip = string_length(text))) {
            out = out substr(text, 1, skip)
            text = substr(text, skip + 1)
        } else if (match(text, /^[a-zA-Z_:][a-zA-Z0-9_:]*/)) {
            name = substr(text, 1, RLENGTH)
            text = substr(text, RLENGTH + 1)
            if (name in count) {
                skip = selector_length(text)
                out = out recorded(name, skip ? substr(text, 2, skip - 2) : "", depth + 1)
                text = substr(text, skip + 1)
            } else out = out name
        } else {
            out = out substr(text, 1, 1)
            text = substr(text, 2)
        }
    }
    return out
}

# What records `name{matchers}`. A matcher of a label that the rule sets selects the rule; the others
# go to the first series of its expression.
function recorded(name, matchers, depth,    i, found, rest, text, level) {
    rest = matchers
    level = ""
    if (match(rest, /level="[^"]*"/)) level = substr(rest, RSTART + 7, RLENGTH - 8)
    for (i = 1; i <= count[name]; i++) {
        if (label[name, i] != "" && label[name, i] != level) continue
        if (found++) fail(name "{" matchers "} is recorded by two rules")
        text = expression[name, i]
        if (label[name, i] != "") {
            sub(/level="[^"]*"(, *)?/, "", rest)
            sub(/, *$/, "", rest)
        }
        if (rest != "") {
            if (!match(text, /^[a-zA-Z_:][a-zA-Z0-9_:]*/) || substr(text, RLENGTH + 1, 1) ~ /[({]/)
                fail(name "{" matchers "}: cannot select from " text)
            text = substr(text, 1, RLENGTH) "{" rest "}" substr(text, RLENGTH + 1)
        }
        text = "(" flat(text, depth) ")"
        if (label[name, i] != "")
            text = "label_replace(" text ", \"level\", \"" label[name, i] "\", \"\", \"\")"
    }
    if (!found) fail("no rule records " name "{" matchers "}")
    return text
}

function indentation(text) { match(text, /^ */); return RLENGTH }
# An expression ends with the first line that is not indented more than its key.
function ends_expression(text) { return text !~ /^ *$/ && indentation(text) <= indent }

FNR == 1 { pass++; in_expression = 0; name = ""; alert = 0 }
in_expression && ends_expression($0) {
    in_expression = 0
    if (pass == 2) {
        new = flat(text, 0)
        if (new != text && written ~ /#/) fail("a comment in an expression")
        printf "%s", new == text ? written : "            " new "\n"
    }
}

# The first time: the rules that record, but for the table, whose rows are on one line each.
pass == 1 && in_expression {
    if (/#/) fail("a comment in an expression")
    expression[name, count[name]] = trimmed(expression[name, count[name]] " " trimmed($0))
    next
}
pass == 1 && /^ *- (record|alert): / {
    name = /record: / ? trimmed(substr($0, index($0, "record: ") + 8)) : ""
    if (name != "") count[name]++
}
pass == 1 && name != "" && /^ *expr: / {
    text = trimmed(substr($0, index($0, "expr: ") + 6))
    if (text ~ /^[|>]/) { in_expression = 1; indent = indentation($0) }
    else expression[name, count[name]] = text
}
pass == 1 && name != "" && /^ *level: / {
    label[name, count[name]] = trimmed(substr($0, index($0, "level: ") + 7))
}
pass == 1 { next }

# The second time: the file, with the expressions of alerts made flat.
FNR == 1 { print "# Written by rules/flat.sh from procstorm.rules.yml: change that file, and run it again.\n#" }
in_expression { text = trimmed(text " " trimmed($0)); written = written $0 "\n"; next }
/^ *- (record|alert): / { alert = /alert: / }
alert && /^ *expr: *[^|> ]/ {
    text = trimmed(substr($0, index($0, "expr:") + 5))
    if ((new = flat(text, 0)) != text) {
        if (text ~ /^["'\''#]/) fail("write this expression below `expr: |2`")
        printf "%*sexpr: |2\n            %s\n", indentation($0), "", new
        next
    }
}
{ print }
alert && /^ *expr: [|>]/ { in_expression = 1; indent = indentation($0); text = written = "" }
END { exit failed }
' "$file" "$file"
