# Each target sets up .venv first. PYTHON names the interpreter for it; without a name, it is the
# first of these three that is supported (pyproject.toml) and can make .venv.
PYTHON ?= $(shell for name in python3 python3.12 python3.11; do \
  $$name -I mufin/check_machine.py --python 2> /dev/null && echo $$name && exit; \
  done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
# dvc runs the `python` of a stage from the PATH
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
  -c constraints/runtime.txt -c constraints/test.txt
CODE := mufin pipeline compare tests benchmarks

# `compare` is also a folder: without this line make would take the target for done
.PHONY: help repro demo test lint compare fitb deps bench bench-gpu setup

help:
	@echo "make repro       runs the whole pipeline, on the sample or on what params.yaml names"
	@echo "make demo        serves the trained model on this machine, and prints the address of its page"
	@echo "make test        runs make lint, then all tests"
	@echo "make lint        checks style (ruff) and types (mypy)"
	@echo "make compare     runs MUFIN's variants and other methods: a table, a report; SEEDS='0 1 2'"
	@echo "make fitb        fills the blanks of outfits by MUFIN and six rivals: Table 3; SEEDS='0 1 2'"
	@echo "make deps        writes the code and packages of each stage into the dvc.yaml files"
	@echo "make bench       measures this machine without a GPU: the table of docs/speed.md"
	@echo "make bench-gpu   measures one GPU for 8 minutes; ARGS=--tiny tries it on a CPU"
	@echo "make setup       installs all packages into .venv, as the others do by themselves"

repro: $(VENV)/ready
	$(IN_VENV) dvc repro

# Trains first where there is no model; one that is older than the settings is served as it is.
demo: $(VENV)/ready
	@test -e models/mix.json || $(MAKE) --no-print-directory repro
	$(IN_VENV) mufin demo

# One process per core, up to four, each with one thread; the tests of a file share a process.
# Tests start hundreds of processes, each of which would compile the library anew without bytecode.
test: lint
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MUFIN_WORKERS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder

lint: $(VENV)/ready
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy mufin

compare: $(VENV)/ready
	$(IN_VENV) python -m compare.run $(if $(SEEDS),--seeds $(SEEDS)) $(if $(VARIANTS),--variants $(VARIANTS))

fitb: $(VENV)/ready
	$(IN_VENV) python -m compare.fitb $(foreach seed,$(SEEDS),--seeds $(seed))

deps: $(VENV)/ready
	$(BIN)/python -m mufin.deps

bench: $(VENV)/ready
	$(IN_VENV) python -m benchmarks.run $(ARGS)

# A machine with a GPU may have no network: where PYTHON (.venv's, if there is one) has torch, that
# one is used as it is, without setting up.
bench-gpu:
	@$(IN_VENV); export PATH; "$(PYTHON)" -c "import importlib.util as u; \
	  assert all(map(u.find_spec, ('torch', 'timm', 'transformers')))" 2> /dev/null \
	  || $(MAKE) --no-print-directory setup
	$(IN_VENV) "$(PYTHON)" -m benchmarks.gpu $(ARGS)

setup: $(VENV)/ready

# Without `whole`, .venv is of an older Makefile or of a `make` that was killed: it is made anew.
# uv installs torch's CUDA build in a minute where pip takes four. It compiles what it installs, as
# pip does: with PYTHONDONTWRITEBYTECODE each `import torch` would compile torch (4 seconds). omikuji and napkinxc (two rows of
# the study) are not built from source: a machine without a compiler goes without them.
$(VENV)/ready: pyproject.toml constraints/runtime.txt constraints/test.txt
	@{ test -e $(VENV)/whole && $(BIN)/python -I mufin/check_machine.py 2> /dev/null; } || { \
	  command -v "$(PYTHON)" > /dev/null || { \
	    echo "$(PYTHON) was not found; install Python 3.11 or 3.12 with its venv module" >&2; \
	    exit 1; }; \
	  "$(PYTHON)" -I mufin/check_machine.py && "$(PYTHON)" -m venv --clear $(VENV); }
	rm -f $(VENV)/whole
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/test.txt uv
	$(INSTALL) -e '.[serve,export,test]'
	@for package in omikuji napkinxc; do \
	  $(INSTALL) --only-binary $$package $$package || \
	    echo "$$package cannot be installed here: make compare reports its row as failed" >&2; done
	touch $(VENV)/whole $@
