#!/bin/sh
# Installs the built programs, and what belongs to them. `make install` runs it, and so does the
# build of each package: this is the one list of what goes where. From the environment:
#
#   DESTDIR       put in front of every path; default: nothing
#   PREFIX        default /usr/local
#   SYSCONFDIR    default /etc
#   PROGRAMS      the directory of the built programs
#   XTASK         the program that writes the completions; default: the one in PROGRAMS. It runs on
#                 this machine, PROGRAMS may be another's.
#   STRIP         the program that strips the installed programs; default: they are not stripped
#   ZSHDIR        where zsh looks for completions
set -eu
cd "$(dirname "$0")/.."
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
etc=${SYSCONFDIR:-/etc}
share=$PREFIX/share
zsh=${ZSHDIR:-$share/zsh/site-functions}
XTASK=${XTASK:-$PROGRAMS/xtask}

for program in "$PROGRAMS/procstorm-exporter" "$PROGRAMS/procstorm-remediator" "$XTASK"; do
    if [ ! -x "$program" ]; then
        echo "install: $program is missing; run: make release" >&2
        exit 1
    fi
done

put() { install -D -m "${3:-644}" "$1" "$DESTDIR$2"; }

completions=$(mktemp -d)
trap 'rm -rf "$completions"' EXIT
"$XTASK" completions "$completions"

for daemon in exporter remediator; do
    name=procstorm-$daemon
    put "$PROGRAMS/$name" "$PREFIX/bin/$name" 755
    if [ -n "${STRIP:-}" ]; then "$STRIP" "$DESTDIR$PREFIX/bin/$name"; fi
    for unit in "$daemon/$name".service "$daemon/$name".socket "$daemon/$name"-port.service; do
        [ -f "$unit" ] || continue
        put "$unit" "$PREFIX/lib/systemd/system/${unit##*/}"
        # The unit names the program of a package.
        sed -i "s|/usr/bin/procstorm|$PREFIX/bin/procstorm|" \
            "$DESTDIR$PREFIX/lib/systemd/system/${unit##*/}"
    done
    put "$daemon/$name.default" "$etc/default/$name"
    put "$daemon/$name.8" "$share/man/man8/$name.8"
    put "$completions/bash/$name" "$share/bash-completion/completions/$name"
    put "$completions/zsh/_$name" "$zsh/_$name"
    put "$completions/fish/$name.fish" "$share/fish/vendor_completions.d/$name.fish"
done
put exporter/web.example.yml "$share/doc/procstorm-exporter/web.example.yml"
put remediator/procstorm-remediator.sysusers "$PREFIX/lib/sysusers.d/procstorm-remediator.conf"
# An example, and not in /etc: without a policy that somebody has written, nothing is killed.
put remediator/remediator.yml "$share/doc/procstorm-remediator/remediator.yml"
put remediator/README.md "$share/doc/procstorm-remediator/README.md"

# The Prometheus host. What people change is in /etc, with the tests that check their changes.
for file in rules/*.yml rules/tests/*.yml alertmanager/*.yml alertmanager/*.tsv \
    alertmanager/templates/*; do
    put "$file" "$etc/procstorm/$file"
done
for script in check.sh log.sh; do put "rules/$script" "$share/procstorm/rules/$script" 755; done
put grafana/procstorm.json "$share/procstorm/grafana/procstorm.json"
# As they lie in the project, since they link to each other.
for file in README.md rules/*.md remediator/README.md alertmanager/*.png remediator/*.png; do
    put "$file" "$share/doc/procstorm-monitoring/$file"
done
