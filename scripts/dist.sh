#!/usr/bin/env bash
# Build the sdist, and from it the wheel, into dist/. Check both, and run the demo from the wheel alone.
#
#   make dist                                   all of this
#   make dist SDIST_TESTS="-q"                  and the sdist's own tests, from its unpacked folder
#   make dist SDIST_TESTS="tests/webhook -q"    or some of them
set -euo pipefail
cd "$(dirname "$0")/.."

python=$PWD/.venv/bin/python
kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
# Nothing of this folder may be found by what is tested outside of it.
unset PYTHONPATH

rm -rf dist
"$python" -m build --no-isolation --outdir dist . >"$kept/build.log" 2>&1 || { cat "$kept/build.log" >&2; exit 1; }
"$python" -m twine check --strict dist/*
"$python" -m check_wheel_contents dist/*.whl

# The wheel, and what it asks for: no tests, no tools, nothing of this repository.
scripts/make_venv.sh "$kept/clean" "$("$python" -c 'import sys; print(sys._base_executable)')"
"$kept/clean/bin/python" -m pip install --quiet --disable-pip-version-check dist/*.whl
version=$(cd "$kept" && clean/bin/whereby-trigger --version)
echo "installed alone: $version"
[[ "dist/whereby_trigger-${version##* }.tar.gz" == dist/*.tar.gz ]] && [ -e "dist/whereby_trigger-${version##* }.tar.gz" ]
(cd "$kept" && clean/bin/whereby-trigger demo)

if [ -n "${SDIST_TESTS:-}" ]; then
    tar -xzf dist/*.tar.gz -C "$kept"
    make -C "$kept/whereby_trigger-${version##* }" test ARGS="$SDIST_TESTS"
fi
ls -l dist
