#!/bin/sh
# Validates procstorm.json against the models that Grafana publishes on npm.  Without npm, or if npm
# cannot download them, prints that the models were not checked.
set -eu
cd "$(dirname "$0")/.."
dir=${CARGO_TARGET_DIR:-target}/grafana
if ! command -v npm >/dev/null; then
    echo "grafana: MODEL NOT CHECKED: npm is not installed (apt-get install npm)" >&2
    exit 0
fi
mkdir -p "$dir"
cp grafana/check-model.mjs "$dir"
if [ ! -d "$dir/node_modules/ajv" ] && ! (cd "$dir" && npm install --silent --no-save \
    --ignore-scripts --no-audit --no-fund --prefix . @grafana/grafana-foundation-sdk@0.0.21 \
    ajv@8 ts-json-schema-generator@2 typescript@5); then
    echo "grafana: MODEL NOT CHECKED: npm cannot download the models" >&2
    exit 0
fi
node "$dir/check-model.mjs" grafana/procstorm.json "$dir/node_modules"
