# `make repro` and `make test` set themselves up in .venv; PYTHON names another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# dvc runs a stage's `python` from PATH
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: repro test lint setup help

help:
	@echo "make repro   run the whole pipeline on the sample (or whatever params.yaml says)"
	@echo "make test    run every check"
	@echo "make lint    ruff"

repro: $(VENV)/ready
	$(BIN)/dvc repro

test: $(VENV)/ready
	$(BIN)/ruff check pipeline tests benchmarks
	$(BIN)/python -m pytest

lint: $(VENV)/ready
	$(BIN)/ruff check pipeline tests benchmarks

setup: $(VENV)/ready

# uv installs torch's CUDA build in a minute where pip takes four
$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test,baselines]'
	touch $@
