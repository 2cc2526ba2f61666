# Two commands matter: `make run` and `make test`. Both make .venv first, from nothing or from what is there.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2

.PHONY: run test lab lint params install extras help

run: install  ## the whole job on the embedded world, to a report
	$(BIN)/timer1 run params/tiny.yaml

test: install  ## all tests, on WORKERS cores (2)
	$(BIN)/python -m pytest -n $(WORKERS)

lab: install  ## JupyterLab on copies of the notebooks; ARGS="--port 8899 --no-browser"
	$(BIN)/timer1 lab $(ARGS)

lint: install  ## ruff (notebooks too), types, and that the notebooks' parameter cells match the models
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m timer1lib.params.cells --check

params: install  ## write the notebooks' parameter cells from the models and params/tiny.yaml
	$(BIN)/python -m timer1lib.params.cells

install: $(STAMP)

# Bytecode is compiled at install: importing torch and trl takes 11 s with it and 25 s without, in every kernel.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

extras: .venv/.extras  ## what only some machines need besides: Ray, Slurm, S3, 4-bit weights (for their tests)

.venv/.extras: $(STAMP) requirements-extras.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements-extras.lock
	touch $@

help:
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /make \1: /'
