#!/usr/bin/env bash
# Create the virtual environment $1, with pip in it, by the interpreter $2.
set -euo pipefail

venv=$1
python=${2:-}
if ! "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "${python:-No interpreter found} is not Python 3.11 or later: name one, as in make PYTHON=/path/to/python3" >&2
    exit 1
fi

if "$python" -m venv --clear "$venv" >/dev/null 2>&1; then
    exit
fi

# Debian ships ensurepip apart, as python3-venv; the interpreter's own pip can fill an environment too.
if ! "$python" -m pip --version >/dev/null; then
    echo "$python has neither ensurepip nor pip: install one of them (on Debian: python3-venv or python3-pip)" >&2
    exit 1
fi
"$python" -m venv --clear --without-pip "$venv"
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -m pip install --quiet --disable-pip-version-check --target "$packages" \
    --require-hashes -r requirements/build.txt
