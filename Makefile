# Two commands matter: `make run` and `make test`. Both make .venv first, from nothing or from what is there.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2
ADD = $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r

.PHONY: run test lab lint params docs wheel lock install dev extras help

run: install  ## the whole job on the embedded world, to a report
	$(BIN)/timer1 run params/tiny.yaml

test: dev  ## all tests, on WORKERS cores (2)
	$(BIN)/python -m pytest -n $(WORKERS)

lab: install  ## JupyterLab on copies of the notebooks; ARGS="--port 8899 --no-browser"
	$(BIN)/timer1 lab $(ARGS)

lint: dev  ## ruff (notebooks too), types, and that the notebooks' parameter cells match the models
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m timer1lib.params.cells --check

params: install  ## write the notebooks' parameter cells from the models and params/tiny.yaml
	$(BIN)/python -m timer1lib.params.cells

docs: dev  ## the documentation as a site in outputs/site, with the notebooks of outputs/tiny as they ran
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: install  ## the wheel and the source archive, in outputs/dist
	$(BIN)/python -m hatchling build --directory outputs/dist

install: $(STAMP)

# Bytecode is compiled at install: importing torch and trl takes 11 s with it and 25 s without, in every kernel.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "timer1 needs Python 3.11 or later, and $(PYTHON) is another: make run PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; }
	@$(ADD) requirements.lock || { echo "not installed; it takes up to 8 GB, and here is: $$(df -Ph . | tail -1)" >&2; exit 1; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

dev: .venv/.dev  ## what tests, lint and docs need besides

.venv/.dev: $(STAMP) requirements-dev.lock
	$(ADD) requirements-dev.lock
	touch $@

extras: .venv/.extras  ## what only some machines need besides: Ray, Slurm, S3, 4-bit weights (for their tests)

.venv/.extras: .venv/.dev requirements-extras.lock
	$(ADD) requirements-extras.lock
	touch $@

# Each lock holds the one before, for Linux on x86-64 and aarch64 and macOS on arm64; what is pinned stays unless it must move.
RESOLVE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header pyproject.toml --group build
RUN_EXTRAS = --extra train --extra lab
DEV_EXTRAS = $(RUN_EXTRAS) --extra dev --extra docs
ALL_EXTRAS = $(DEV_EXTRAS) --extra ray --extra slurm --extra s3 --extra bnb --extra torchao --extra extras-dev

lock: install  ## resolve the three locks anew from pyproject.toml
	$(RESOLVE) $(RUN_EXTRAS) -o requirements.lock >/dev/null
	$(RESOLVE) $(DEV_EXTRAS) -o requirements-dev.lock >/dev/null
	$(RESOLVE) $(ALL_EXTRAS) -o requirements-extras.lock >/dev/null

help:
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /make \1: /'
