#!/bin/sh
# build.sh FOLDER BIN: makes what is published in FOLDER, by the locked tools in BIN: the sdist, the wheel that is built of the
# sdist, and the bill of materials of both (CycloneDX), of requirements-runtime.lock, by requirements-release.lock in a venv of
# its own. The same source gives the same files.
set -eu
folder=$1 bin=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1577836800)}
export SOURCE_DATE_EPOCH
rm -rf "$folder" && mkdir -p "$folder"
"$bin/python" -m hatchling build -t sdist -d "$folder"
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
tar -xzf "$folder"/*.tar.gz -C "$unpacked"
out=$(cd "$folder" && pwd)
(cd "$unpacked"/iggyflux-* && "$bin/python" -m hatchling build -t wheel -d "$out")
"$bin/uv" venv --quiet --python "$bin/python" "$unpacked/.release"
"$bin/uv" pip install --quiet --python "$unpacked/.release" --require-hashes -r requirements-release.lock
"$unpacked/.release/bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible --output-format JSON \
    --output-file "$folder/iggyflux.cdx.json" requirements-runtime.lock
ls "$folder"
