#!/bin/sh
# Make codemirror.js of the playground from the versions in package-lock.json, and gather the licences of what is in it.
# build.sh [FOLDER]: write to FOLDER instead of the package.  It needs Node and npm; users of iggyflux need neither.
set -eu
cd "$(dirname "$0")"
target=$(realpath "${1:-../iggyflux/playground/static}")
[ -d node_modules ] || npm ci --silent --ignore-scripts
node_modules/.bin/esbuild parts.js --bundle --minify --format=esm --target=es2022 --charset=utf8 --log-level=warning \
    --metafile=node_modules/parts.json --outfile="$target/codemirror.js"
node licences.js node_modules/parts.json >"$target/codemirror.LICENSE.txt"
