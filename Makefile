# Every target makes what it needs: a .venv from the lock, and nothing outside this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "iggyflux needs Python 3.11 or newer (make PYTHON=python3.12 …)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

venv: $(VENV)/.ready  ## make .venv from the lock

test: $(VENV)/.ready  ## run the tests
	$(BIN)/python -m pytest

test-long: $(VENV)/.ready  ## run the tests with their full numbers (hours)
	$(BIN)/python -m pytest --long

format: $(VENV)/.ready  ## rewrite the code in the house format
	$(BIN)/ruff format iggyflux tests bench
	$(BIN)/ruff check --fix iggyflux tests bench

check: $(VENV)/.ready  ## format, lint, types, layers, tests, docs: what a change must pass
	$(BIN)/ruff format --check iggyflux tests bench
	$(BIN)/ruff check iggyflux tests bench
	$(BIN)/mypy
	$(BIN)/python -m pytest

.PHONY: help venv test test-long format check
