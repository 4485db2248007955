#!/usr/bin/env bash
# Create the virtual environment $1 with pip in it, by $PYTHON.
set -euo pipefail

venv=$1
if [[ -z ${PYTHON:-} ]]; then
    echo "No Python 3.11 or later was found: install one, or name it: make PYTHON=/path/to/python3" >&2
    exit 1
fi

if "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
    "$PYTHON" -m venv --clear "$venv"
    exit
fi

# Debian ships ensurepip apart, in python3-venv. The interpreter's own pip fills an environment just as well.
if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    echo "$PYTHON has neither ensurepip nor pip: install one of them (on Debian: python3-venv or python3-pip)" >&2
    exit 1
fi
"$PYTHON" -m venv --clear --without-pip "$venv"
"$PYTHON" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check \
    --require-hashes -r requirements/build.txt
