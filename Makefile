# Every way to build, try, check and measure this project; `make help` lists them. Needs Python >= 3.11, git and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/done

.DEFAULT_GOAL := help
.PHONY: setup demo test check bench-relay lock clean help

setup: $(DONE)/project $(DONE)/engine ## make .venv: the command, the tools, and a real engine (torch, transformers)

demo: setup ## a real engine, the sidecar before it, a gentle load: see it work (ARGS="--for 60s")
	$(BIN)/python scripts/demo.py $(ARGS)

test: setup ## every test, against real peers, with branch coverage (ARGS="-k name")
	scripts/prometheus
	$(BIN)/python -m pytest --cov --cov-branch --cov-report=term $(ARGS)

check: $(DONE)/project ## format, lint, types, import layers, generated files up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -e scripts/generate.py ]; then set -x; $(BIN)/python scripts/generate.py --check; fi

bench-relay: $(DONE)/project ## the relay's cost beside nginx and a direct connection (ARGS="--quick --goals")
	scripts/debian-packages nginx=nginx-light cc=build-essential
	PYTHONPATH=tests $(BIN)/python -m bench.relay $(ARGS)

lock: $(DONE)/dev ## resolve requirements/*.txt again (ARGS="--upgrade")
	scripts/lock $(ARGS)

clean: ## remove .venv, caches and everything downloaded
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# One stamp per layer of .venv: a layer is installed again when what it is made of changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 needed, found: $(PYTHON)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "on Debian: apt-get install python3-venv"; exit 1; }

$(DONE)/dev: requirements/dev.txt | $(BIN)/python
	$(BIN)/pip install --quiet --require-hashes -r $<
	@mkdir -p $(DONE) && touch $@

# torch before what depends on it, and without hashes: pip takes a CPU build where PIP_FIND_LINKS offers one.
$(DONE)/torch: requirements/torch.txt | $(DONE)/dev
	$(BIN)/pip install --quiet -r $<
	@touch $@

$(DONE)/engine: requirements/engine.txt $(DONE)/dev $(DONE)/torch
	$(BIN)/pip install --quiet --require-hashes --no-deps -r $<
	@touch $@

$(DONE)/project: pyproject.toml $(DONE)/dev
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@
