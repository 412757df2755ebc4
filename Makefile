# Two commands are all that a newcomer needs: `make demo` and `make test`.
# Settings: PYTHON (which python3), EXTRAS (what is installed), N (test processes).
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 2
PIP_FIND_LINKS ?=
# Rooms and files whose tests take seconds together; `make test` runs all.
STARTS_PROGRAMS := tests/test_documented_commands.py tests/test_notebooks.py tests/test_processes.py
FAST := tests/prompts tests/encoders tests/evaluation/test_metrics.py tests/studio/test_orders.py tests/studio/test_places.py \
  tests/studio/test_consent.py $(filter-out $(STARTS_PROGRAMS),$(wildcard tests/test_*.py))

# uv does not read pip's configuration, so a local folder of wheels is handed on to it; an empty one is harmless.
# Modules are compiled once, as pip does it: where Python may not write bytecode, every command would compile them anew.
INSTALL = UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check docs wheel fuzz setup setup-dev lint format train-small evaluate benchmark ablate bench bench-train load pack clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: $(VENV)/core.stamp ## make a gallery of two bundled people
	@$(BIN)/photomaker demo --out out/gallery.png
	@echo "the gallery is in $(CURDIR)/out/gallery.png"

test: $(VENV)/dev.stamp lint ## ruff, mypy and the tests
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n $(N) -q

test-fast: $(VENV)/dev.stamp ## the quick tests, in under a minute
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n $(N) -q -m "not slow and not bundled and not gpu" $(FAST)

check: test docs wheel ## everything that CI checks

docs: $(VENV)/docs.stamp ## build the documentation as a site and check every link
	$(BIN)/python scripts/build_docs.py

wheel: $(VENV)/dev.stamp ## build the wheel and draw a picture from it alone, in an empty environment
	UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/python scripts/try_wheel.py

fuzz: $(VENV)/dev.stamp ## damaged files at every reader, 10,000 of them
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=src:. $(BIN)/python -m tests.fuzz.run

lint: $(VENV)/dev.stamp ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp ## lay out the code
	$(BIN)/ruff format .

setup: $(VENV)/core.stamp ## install what `photomaker` needs into .venv

setup-dev: $(VENV)/dev.stamp ## install what tests, training and evaluation need as well

train-small: $(VENV)/dev.stamp ## train the bundled model from scratch; goes on where it stopped
	$(BIN)/python scripts/train_small/run.py

evaluate: $(VENV)/dev.stamp ## measure the bundled model; writes benchmarks/
	$(BIN)/photomaker evaluate

benchmark: $(VENV)/dev.stamp ## measure all methods side by side, in about an hour; writes benchmarks/methods.*, README, docs
	HF_HUB_OFFLINE=1 $(BIN)/photomaker benchmark --dtype bf16 --curve-people 10 --out benchmarks --readme README.md --readme docs/benchmark.md
	$(BIN)/python scripts/method_pages.py

ablate: $(VENV)/dev.stamp ## train small adapters that lack one part of the method each, and compare them; about an hour
	$(BIN)/photomaker ablate

bench: $(VENV)/dev.stamp ## time full-size SDXL with random weights beside plain diffusers; writes benchmarks/
	$(BIN)/photomaker bench

bench-train: $(VENV)/dev.stamp ## time training steps of full-size SDXL beside diffusers' LoRA training; writes benchmarks/
	$(BIN)/photomaker bench-train

load: $(VENV)/dev.stamp ## load the HTTP server with 32 clients for five minutes; writes benchmarks/serve.*
	$(BIN)/python scripts/load_server.py

pack: $(VENV)/dev.stamp ## write the manifest of the bundled weights and check their size
	$(BIN)/python scripts/pack_assets.py

clean: ## remove what the tools left
	rm -rf out .pytest_cache .ruff_cache .mypy_cache build dist

$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "photomaker needs Python 3.11 or later as '$(PYTHON)'; install it, or name another: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "this Python has no venv; install it first: sudo apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/core.stamp: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(INSTALL) -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/core.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(INSTALL) -e '.[docs]'
	@touch $@ $(VENV)/core.stamp
