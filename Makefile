# What can be done here: `make help`.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help demo test check ci bench bench-instances format lock docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("dragoman needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.runtime  ## real speech and text translated by three real nodes, in one command
	@$(BIN)/dragoman demo

test: $(VENV)/.dev  ## every test, also those with real processes and engines
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(VENV)/.dev  ## format, lint, types, import rules, fast tests: under a minute, before each commit
	$(BIN)/ruff format --check src tests examples
	$(BIN)/ruff check src tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -n 2 -m 'not slow'

format: $(VENV)/.dev  ## put the code into the house's format
	$(BIN)/ruff check --fix-only --quiet src tests examples
	$(BIN)/ruff format src tests examples

ci: check test  ## what the build server runs

bench: $(VENV)/.runtime  ## what a job costs here, and the floor under it
	$(BIN)/dragoman bench floor
	$(BIN)/dragoman bench

bench-instances: $(VENV)/.runtime  ## the same over a Valkey and a Redis Cluster, with 1, 2 and 4 instances
	$(BIN)/dragoman bench floor --store valkey
	$(BIN)/dragoman bench --store valkey --instances 1 --instances 2 --instances 4
	$(BIN)/dragoman bench --store valkey --instances 2 --same-instance
	$(BIN)/dragoman bench --store cluster --instances 1 --instances 2

docs: $(VENV)/.runtime  ## write the parts of docs/ that are made from the code
	$(BIN)/python -m dragoman config-reference > docs/configuration.md

lock: $(VENV)/.dev  ## choose the versions of all dependencies anew
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --extra offline --extra valkey pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --extra offline --extra valkey --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove what was built and installed
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
