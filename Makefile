# `make repro` and `make test` set themselves up in .venv; PYTHON names another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# dvc runs a stage's `python` from PATH
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: repro test lint setup help bench-gpu

help:
	@echo "make repro       run the whole pipeline on the sample (or whatever params.yaml says)"
	@echo "make test        run every check"
	@echo "make lint        ruff"
	@echo "make bench-gpu   what one GPU makes of the paper's sizes, in eight minutes; ARGS=--tiny rehearses on a CPU"

repro: $(VENV)/ready
	$(BIN)/dvc repro

test: $(VENV)/ready
	$(BIN)/ruff check pipeline tests benchmarks
	$(BIN)/python -m pytest

lint: $(VENV)/ready
	$(BIN)/ruff check pipeline tests benchmarks

# With PYTHON (.venv's, where there is one) if it has torch, else after setting up: a GPU box may have no network
bench-gpu:
	@$(PYTHON) -c "import importlib.util as u; assert all(map(u.find_spec, ('torch', 'timm', 'transformers')))" \
	  2>/dev/null || $(MAKE) --no-print-directory setup
	$(PYTHON) -m benchmarks.gpu $(ARGS)

setup: $(VENV)/ready

# uv installs torch's CUDA build in a minute where pip takes four
$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test,baselines]'
	touch $@
