# make demo   audit the shipped model, offline
# make test   lint, types and tests (minutes); make slow adds the long checks
# make audit  known holes in the packages (asks a service on the network), and a bill of materials in build/sbom.json
# make docs   the documentation as a site, in site/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# small models: a process a core is twice as fast as threads in one
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
export HF_HUB_OFFLINE = 1

.PHONY: demo check-demo test slow audit docs lint format setup clean

demo: setup
	$(BIN)/findnemo demo --out findnemo-demo

check-demo: setup
	$(BIN)/findnemo demo --check

test: setup lint
	$(PYTEST) --durations=8

slow: setup
	$(BIN)/python -m pytest -m slow --durations=8

audit: setup
	test -x $(BIN)/pip-audit || $(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	mkdir -p build
	$(BIN)/pip-audit --skip-editable --format cyclonedx-json --output build/sbom.json || echo "holes were found, or the service could not be asked: see above"
	test -s build/sbom.json && echo "bill of materials: build/sbom.json"

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
