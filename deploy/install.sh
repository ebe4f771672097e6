#!/bin/sh
# Installs the built programs, their units, manual pages, completions and examples. `make install` and
# the build of each package run it: this is the only list of what goes where. From the environment:
#
#   DESTDIR       a prefix of every path; default: empty
#   PREFIX        default /usr/local
#   SYSCONFDIR    default /etc
#   PROGRAMS      the directory of the built programs
#   XTASK         the program that writes the completions; default: the one in PROGRAMS. It runs on
#                 this machine; PROGRAMS may be for another architecture.
#   STRIP         the program that strips the installed programs; default: they are not stripped
#   ZSHDIR        where zsh looks for completions
#   UNINSTALL     if it is not empty, what would be installed is removed; a changed file in SYSCONFDIR stays
set -eu
cd "$(dirname "$0")/.."
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
etc=${SYSCONFDIR:-/etc}
share=$PREFIX/share
zsh=${ZSHDIR:-$share/zsh/site-functions}
XTASK=${XTASK:-$PROGRAMS/xtask}

if [ -z "${UNINSTALL:-}" ]; then
    for program in "$PROGRAMS/procstorm-exporter" "$PROGRAMS/procstorm-remediator" "$XTASK"; do
        if [ ! -x "$program" ]; then
            echo "install: $program is missing; run: make release" >&2
            exit 1
        fi
    done
fi

put() {
    if [ -z "${UNINSTALL:-}" ]; then
        install -D -m "${3:-644}" "$1" "$DESTDIR$2"
        return
    fi
    case $2 in
    "$etc"/*)
        if [ -e "$DESTDIR$2" ] && ! cmp -s "$1" "$DESTDIR$2"; then
            echo "uninstall: $DESTDIR$2 was changed and stays" >&2
            return
        fi
        ;;
    esac
    rm -f "$DESTDIR$2"
}

completions=$(mktemp -d)
trap 'rm -rf "$completions"' EXIT
if [ -z "${UNINSTALL:-}" ]; then "$XTASK" completions "$completions"; fi

for daemon in exporter remediator; do
    name=procstorm-$daemon
    put "$PROGRAMS/$name" "$PREFIX/bin/$name" 755
    if [ -z "${UNINSTALL:-}" ] && [ -n "${STRIP:-}" ]; then "$STRIP" "$DESTDIR$PREFIX/bin/$name"; fi
    for unit in "$daemon/$name".service "$daemon/$name".socket "$daemon/$name"-port.service; do
        [ -f "$unit" ] || continue
        put "$unit" "$PREFIX/lib/systemd/system/${unit##*/}"
        [ -z "${UNINSTALL:-}" ] || continue
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
put exporter/procstorm-exporter-bpf.conf "$share/doc/procstorm-exporter/bpf.conf"
put remediator/procstorm-remediator.sysusers "$PREFIX/lib/sysusers.d/procstorm-remediator.conf"
# The policy is an example outside of /etc: until a person writes a policy, nothing is killed.
put remediator/remediator.yml "$share/doc/procstorm-remediator/remediator.yml"
put remediator/README.md "$share/doc/procstorm-remediator/README.md"

# For the Prometheus host. Files that people change go to /etc, with the tests that check changes.
for file in rules/*.yml rules/tests/*.yml alertmanager/*.yml alertmanager/*.tsv \
    alertmanager/templates/*; do
    put "$file" "$etc/procstorm/$file"
done
for script in check.sh log.sh; do put "rules/$script" "$share/procstorm/rules/$script" 755; done
put grafana/procstorm.json "$share/procstorm/grafana/procstorm.json"
# In the same directories as in the project, since they link to each other.
for file in README.md rules/*.md remediator/README.md alertmanager/*.md alertmanager/*.png \
    exporter/*.png grafana/*.png remediator/*.png; do
    put "$file" "$share/doc/procstorm-monitoring/$file"
done

if [ -n "${UNINSTALL:-}" ]; then
    for directory in "$etc/procstorm" "$share/procstorm" "$share/doc/procstorm-exporter" \
        "$share/doc/procstorm-remediator" "$share/doc/procstorm-monitoring"; do
        [ ! -d "$DESTDIR$directory" ] || find "$DESTDIR$directory" -depth -type d -empty -delete
    done
fi
