#!/usr/bin/env bash
# Write requirements/*.txt: exact, hashed versions for every platform, from the ranges in pyproject.toml.
# A release younger than a week is left out: that is how long a bad one takes to be found and withdrawn.
# Settings of this machine (other indexes, folders of wheels) must not decide what others install.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_INDEX_URL PIP_CONFIG_FILE=/dev/null \
        "${UV:-uv}" pip compile --no-config --quiet --upgrade --exclude-newer "7 days" \
        --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"
}

compile --group build --output-file requirements/build.txt
compile pyproject.toml --output-file requirements/base.txt
compile pyproject.toml --extra postgres --constraint requirements/base.txt --output-file requirements/postgres.txt
compile pyproject.toml --all-extras --group test --group lint \
    --constraint requirements/postgres.txt --constraint requirements/build.txt --output-file requirements/test.txt
# They go into the same .venv as the tests, which must not change for it.
for group in dist docs; do
    compile --group "$group" --constraint requirements/test.txt --constraint requirements/build.txt \
        --output-file "requirements/$group.txt"
done
