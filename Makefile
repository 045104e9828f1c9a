# Everything that a newcomer types. `make help` lists it.
# Settings: ARGS (passed on), NPROC (processes of `make run`), JOBS (test workers), PYTHON (interpreter for .venv), TORCH.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
TORCH ?= torch==2.13.0# one version, so that no CUDA build is fetched where a CPU build is at hand
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
NPROC ?= $(shell echo $$(( $(CORES) < 2 ? $(CORES) : 2 )))
JOBS ?= $(NPROC)
CONFIG ?= runners/configs/tiny.toml
ARGS ?=

# One thread a process: two single-threaded processes outrun one with two threads at these sizes.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

LAUNCH = $(PY) $(if $(filter-out 1,$(NPROC)),runners/launch.py $(NPROC))

.PHONY: help run test lint format doctor setup setup-test clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 -- \2/p' $(MAKEFILE_LIST) | awk -F' -- ' '{printf "%-18s %s\n", $$1, $$2}'

run: setup ## the main job on the embedded default: rounds of PLUM on models/tiny (ARGS=--smoke for a short form)
	@$(LAUNCH) runners/plum.py --config $(CONFIG) $(ARGS)

test: lint ## all set-up, then lint, types and every test (ARGS are pytest's)
	@echo "test: pytest on $(JOBS) worker(s)"
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: setup-test ## ruff and mypy alone
	@echo "lint: ruff, then mypy"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: setup-test ## rewrite the sources in the project's style
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

doctor: setup ## what this machine offers, what will be slow, and the one thing to do
	@$(PY) runners/doctor.py $(ARGS)

clean: ## remove caches and build outputs; .venv and runs/ stay
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@echo "clean: caches and build outputs removed; $(VENV) and runs/ stay"

# Set-up. A stamp inside .venv holds what it was made from, so that a second call only compares two strings.

WANTED = $(shell cat pyproject.toml 2>/dev/null | cksum | tr ' ' '-') $(TORCH) $(CURDIR)

setup: ## .venv with what `make run` needs
	@if [ "$$(cat $(VENV)/.plum-run 2>/dev/null)" != "$(WANTED)" ]; then $(MAKE) --no-print-directory install EXTRA= STAMP=run; fi

setup-test: ## .venv with what `make test` needs on top
	@if [ "$$(cat $(VENV)/.plum-test 2>/dev/null)" != "$(WANTED)" ]; then $(MAKE) --no-print-directory install EXTRA='[test]' STAMP=test; fi

.PHONY: venv install
install: venv
	@rm -f $(VENV)/.plum-$(STAMP)
	@echo "$(TORCH)" > $(VENV)/constraints.txt
	@echo "setup: installing $(TORCH) into $(VENV) (the largest part: minutes on a slow line)"
	@$(PY) -m pip install --quiet --quiet "$(TORCH)"
	@echo "setup: installing this checkout, editable$(if $(EXTRA), and the tools of its tests)"
	@$(PY) -m pip install --quiet --quiet -c $(VENV)/constraints.txt -e '.$(EXTRA)'
	@echo "$(WANTED)" | tee $(VENV)/.plum-run > $(VENV)/.plum-$(STAMP)
	@echo "setup: done; the next call skips all this"

venv:
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then ./.ci/make-venv "$(VENV)" "$(PYTHON)"; fi
