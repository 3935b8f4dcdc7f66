# Everything that a developer runs. `make` alone tells what there is.

PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo install test image soak bench scale screenshots lint format clean stale

# What another project has put into the environment does not count here. PIP_… stays: it says where packages come from.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONWARNINGS PYTEST_ADDOPTS MYPYPATH
$(foreach name,$(filter TABLEFEED_%,$(.VARIABLES)),$(eval unexport $(name)))

BIN := .venv/bin

# .venv/.runtime and .venv/.dev are written last, so an interrupted set-up is repeated, and from the start: the directory
# it was made in is their content, because a virtual environment does not survive being moved.
STALE := $(shell [ "$$(cat .venv/.runtime 2>/dev/null)" = "$$(pwd -P)" ] && env -u PYTHONHOME $(BIN)/python -c '' 2>/dev/null || echo stale)

define install
rm -f .venv/.runtime .venv/.dev
$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '$(1)'
pwd -P > .venv/.runtime
endef

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: .venv/.dev ## Make .venv with all that development needs

demo: .venv/.runtime ## Show the whole way of a file, until Ctrl-C (ARGS=--once: until all samples are delivered)
	@$(BIN)/python -m tablefeed demo $(ARGS)

install: ## Install it as a systemd service, as root (PYTHON: of which Python)
	@PYTHON='$(PYTHON)' systemd/install

test: lint ## Check everything, then run all tests and report coverage (ARGS: for pytest)
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m 'not image' --cov --cov-report=term:skip-covered $(ARGS)

image: .venv/.dev ## Build the container image and try it, as root with buildah and podman (ARGS: for pytest)
	@$(BIN)/python -m pytest -m image tests/e2e/test_container.py tests/e2e/test_compose.py $(ARGS)

soak: .venv/.dev ## Mix all faults and audit the books (ARGS='--minutes 30 --seed 1': how long, and which)
	@cd tests && ../$(BIN)/python -m faults.soak $(ARGS)

bench: .venv/.dev ## Measure it beside what people would use instead (ARGS='--rows 1,3 --runs 5': what, and how often)
	@cd tests && ../$(BIN)/python -m bench $(ARGS)

scale: .venv/.dev ## Simulate fleets of up to 100,000 nodes (ARGS=--measure: measure a PostgreSQL here first)
	@cd tests && ../$(BIN)/python -m scale $(ARGS)

screenshots: .venv/.dev ## Make the pictures of the page in docs/ (needs Chromium)
	@cd tests && ../$(BIN)/python -m support.screenshots

lint: .venv/.dev ## Check style, types and the layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/python -m mypy
	@$(BIN)/python -m mypy tests
	@$(BIN)/lint-imports

format: .venv/.dev ## Put the code into its standard form
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean: ## Remove all that these targets have made
	@rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	@find daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: pyproject.toml .ci/constraints.txt $(STALE)
	@command -v '$(PYTHON)' > /dev/null || { \
	  echo "'$(PYTHON)' was not found. Install Python 3.11 or newer, or say which: make PYTHON=/path/to/python3" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "'$(PYTHON)' is older than 3.11. Install a newer one and say which: make PYTHON=/path/to/python3" >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv; the first time takes a minute." >&2
	@[ -z '$(STALE)' ] || '$(PYTHON)' -m venv --clear .venv
	@$(call install,.)

.venv/.dev: .venv/.runtime
	@echo "Installing what development needs into .venv." >&2
	@$(call install,.[dev])
	@touch $@

stale:
