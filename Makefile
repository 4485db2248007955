.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that runs and is new enough. A name on the PATH may be a shim without an interpreter behind it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
UV ?= uv

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
VENV := .venv/.created
BASE := .venv/.base-installed
DEV := .venv/.dev-installed
DIST := .venv/.dist-installed
DOCS := .venv/.docs-installed
CODE := $(wildcard src tests examples reliability bench deploy scripts)

.PHONY: help venv demo demo-cluster test check reliability bench scaling screenshots containers docs dist pins clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

venv: $(DEV) ## Create .venv with everything that development needs

demo: $(BASE) ## Run the demo: scripted meetings on real servers
	$(BIN)/whereby-trigger demo

demo-cluster: $(DEV) ## Run the demo on a real PostgreSQL, which is killed on the way
	PYTHONPATH=. $(BIN)/python scripts/demo_cluster.py

# Hundreds of processes import the package in a run: let them share its bytecode, whatever the environment says.
# Most tests wait for other processes, timers or a disk half of their time: 6 at a time keep two cores busy.
test: $(DEV) ## Run the tests (ARGS="..." goes to pytest)
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 6 --dist worksteal $(ARGS)

check: $(DEV) ## Lint, format, types, layers, file sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/file_sizes.py

reliability: $(DEV) ## Measure what docs/reliability.md reports (ROWS=1,12 for some, STORES=sqlite, DOSE="doses=10")
	PYTHONPATH=. $(BIN)/python -m reliability $(if $(ROWS),--rows $(ROWS)) $(if $(STORES),--stores $(STORES)) \
		$(if $(DOSE),--dose $(DOSE))

bench: $(DEV) ## Measure what docs/performance.md reports (TABLES=1,2 for some, DOSE="rounds=1" for less)
	PYTHONPATH=. $(BIN)/python -m bench $(if $(TABLES),--tables $(TABLES)) $(if $(DOSE),--dose $(DOSE))

scaling: $(DEV) ## Measure and calculate what docs/scaling.md reports
	PYTHONPATH=. $(BIN)/python -m scripts.scaling

screenshots: $(DEV) ## Make the screenshots of the inspector (needs chromium)
	$(BIN)/python scripts/screenshots.py

containers: $(DEV) ## Build and run what deploy/ has for containers, with podman (as root; CHECKS="image rooms" for some)
	scripts/containers.sh $(CHECKS)

docs: $(DOCS) ## Make the documentation's site in build/site; a dead link is an error
	$(BIN)/python scripts/site.py

dist: $(DIST) ## Build and check the sdist and the wheel (SDIST_TESTS="-q" also runs the sdist's tests)
	SDIST_TESTS="$(SDIST_TESTS)" scripts/dist.sh

pins: ## Update the pinned versions in requirements/ (needs uv)
	UV="$(UV)" scripts/pins.sh

clean: ## Remove .venv, caches and builds
	rm -rf .venv bench/*/node_modules tests/inspector/page_checks/node_modules build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV):
	@echo "Setting up .venv, once"
	@scripts/make_venv.sh .venv "$(PYTHON)"
	@touch $@

$(BASE): requirements/build.txt requirements/base.txt pyproject.toml | $(VENV)
	@$(PIP_INSTALL) --require-hashes -r requirements/build.txt
	@$(PIP_INSTALL) --require-hashes -r requirements/base.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements/test.txt $(BASE)
	@$(PIP_INSTALL) --require-hashes -r requirements/test.txt
	@# Compile the tests once: otherwise each worker of the first run compiles them all, at the same time.
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --collect-only -q >/dev/null 2>&1 || true
	@touch $@

$(DIST): requirements/dist.txt $(BASE)
	@$(PIP_INSTALL) --require-hashes -r requirements/dist.txt
	@touch $@

$(DOCS): requirements/docs.txt $(BASE)
	@$(PIP_INSTALL) --require-hashes -r requirements/docs.txt
	@touch $@
