# make demo   audit the shipped model, offline
# make test   lint, types and tests (minutes); make slow adds the long checks
# make docs   the documentation as a site, in site/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# small models: a process a core is twice as fast as threads in one
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
export HF_HUB_OFFLINE = 1

.PHONY: demo check-demo test slow docs lint format setup clean

demo: setup
	$(BIN)/findnemo demo --out findnemo-demo

check-demo: setup
	$(BIN)/findnemo demo --check

test: setup lint
	$(PYTEST) --durations=8

slow: setup
	$(BIN)/python -m pytest -m slow --durations=8

docs: setup
	$(BIN)/mkdocs build --strict

lint: setup
	$(BIN)/ruff check src tests recipes benchmarks notebooks
	$(BIN)/ruff format --check src tests recipes benchmarks notebooks
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix src tests recipes benchmarks notebooks
	$(BIN)/ruff format src tests recipes benchmarks notebooks

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

clean:
	rm -rf $(VENV) build site findnemo-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
