#!/bin/sh
# Draws the dashboard with Grafana's own components after some minutes of real storms, and sees that
# no text is cut at 1,400 pixels. `make dashboard-picture` runs it.
#
#   picture.sh [FILE]    the picture; default: grafana/dashboard.png
#
# Needs root (the storms are those of several users), chromium and npm, which downloads some 500
# packages (650 MB) from npmjs.org into target/dashboard-picture.
set -eu
cd "$(dirname "$0")/.."
dir=${CARGO_TARGET_DIR:-target}/dashboard-picture
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
for program in npm chromium; do
    command -v "$program" >/dev/null && continue
    echo "picture: cannot find $program (apt-get install $program)" >&2
    exit 1
done
if [ ! -d "$dir/node_modules/@grafana/ui" ]; then
    (cd "$dir" && npm install --silent --no-save --ignore-scripts --no-audit --no-fund --prefix . \
        @grafana/data@12.4.6 @grafana/ui@12.4.6 react@18.3.1 react-dom@18.3.1 rxjs@7.8.2 \
        esbuild@0.25) || {
        echo "picture: npm cannot download Grafana's components" >&2
        exit 1
    }
fi
cp grafana/picture/app.jsx grafana/picture/build.mjs "$dir"
(cd "$dir" && node build.mjs)
# The name of this one test, which all others leave out.
PROCSTORM_DASHBOARD_APP=$dir/app.js PROCSTORM_PICTURE=${1:-grafana/dashboard.png} \
    ${CARGO:-cargo} test -p procstorm-tests --test e2e -- --ignored --nocapture \
    the_picture_of_the_dashboard
