#!/bin/sh
# Make .venv and install this project with all it needs into it: sh bootstrap.sh [test]
# PYTHON names the interpreter (3.11 to 3.13; default: python3).
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "error: needs Python 3.11 to 3.13, found $("$python" --version 2>&1); set PYTHON=python3.12, say" >&2
    exit 2
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then # Debian and Ubuntu ship it apart
    root=$([ "$(id -u)" = 0 ] || echo sudo)
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    $root apt-get update && $root apt-get install --yes "$version"
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --editable ".${1:+[$1]}"
