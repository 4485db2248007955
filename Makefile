SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that runs and is new enough: a name on the PATH may be a shim for nothing.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
UV ?= uv

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BASE := .venv/.base-installed
DEV := .venv/.dev-installed

.PHONY: help venv demo test check reliability pins clean

help: ## Show this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

venv: $(DEV) ## Create .venv with everything for working on the package

demo: $(BASE) ## Run the demo: a scripted meeting, sent to a real server
	$(BIN)/whereby-trigger demo

test: $(DEV) ## Run the tests (ARGS=... is passed on to pytest)
	$(BIN)/pytest $(ARGS)

check: $(DEV) ## Lint, format, types, layers, file sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/file_sizes.py

reliability: $(DEV) ## Measure the rows of docs/reliability.md (ROWS=1,12 for some of them)
	PYTHONPATH=. $(BIN)/python -m reliability $(if $(ROWS),--rows $(ROWS))

pins: ## Choose anew the exact versions in requirements/ (needs uv)
	UV="$(UV)" scripts/pins.sh

clean: ## Remove .venv, caches and builds
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests examples reliability scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/python:
	PYTHON="$(PYTHON)" scripts/make_venv.sh .venv

$(BASE): requirements/build.txt requirements/base.txt pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r requirements/build.txt
	$(PIP_INSTALL) --require-hashes -r requirements/base.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements/test.txt $(BASE)
	$(PIP_INSTALL) --require-hashes -r requirements/test.txt
	@touch $@
