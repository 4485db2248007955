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

# Debian ships ensurepip apart, as python3-venv. The interpreter's own pip, however old, can fetch the pinned one,
# and that one installs itself.
if ! "$python" -m pip --version >/dev/null; then
    echo "$python has neither ensurepip nor pip: install one of them (on Debian: python3-venv or python3-pip)" >&2
    exit 1
fi
export PIP_ROOT_USER_ACTION=ignore
borrowed=$(mktemp -d)
trap 'rm -rf "$borrowed"' EXIT
install=(-m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt)
"$python" "${install[@]}" --target "$borrowed"
"$python" -m venv --clear --without-pip "$venv"
PYTHONPATH=$borrowed "$venv/bin/python" "${install[@]}" --ignore-installed
