# make demo   audit the shipped model, offline
# make test   lint, prose, types and tests (ten minutes); make slow runs the tests that take long (half an hour and more)
# make audit  a bill of materials in build/sbom.json, and known holes in the packages (asks a service on the network)
# make docs   the documentation as a site, in site/
# make gpu    what findnemo costs on one GPU (build/gpu/table.md), a rehearsal with small networks where there is none;
#             GPU="--parts sd14 --minutes 9" goes to measurements/gpu.py
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# small models: a process a core is twice as fast as threads in one
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE = 1

.PHONY: demo check-demo test tests slow audit docs gpu lint format setup clean

demo: setup
	$(BIN)/findnemo demo --out findnemo-demo

check-demo: setup
	$(BIN)/findnemo demo --check

# side by side: mypy is one process
test: setup
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint tests

tests: setup
	$(PYTEST) --durations=8

slow: setup
	$(PYTEST) -m slow --durations=8

# an environment of their own for the tools: what they need (chardet, for one) shall not get among what they look at
AUDIT := build/audit-tools
$(AUDIT)/.ready:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.9,<3" "cyclonedx-bom>=7,<8"
	touch $@

audit: setup $(AUDIT)/.ready
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON --output-file build/sbom.json $(BIN)/python
	@echo "bill of materials: build/sbom.json"
	rm -f build/audit.json
	-@$(AUDIT)/bin/pip-audit --path $$($(BIN)/python -c "import site; print(site.getsitepackages()[0])") --skip-editable \
		--progress-spinner off --format json --output build/audit.json 2> build/audit.log
	$(BIN)/python recipes/known_holes.py build/audit.json

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# an interpreter whose PyTorch has the GPU is taken as it is
gpu:
	@if $(PYTHON) -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2> /dev/null; \
		then PYTHONPATH=src:$$PYTHONPATH $(PYTHON) measurements/gpu.py $(GPU); \
		else $(MAKE) --no-print-directory setup && $(BIN)/python measurements/gpu.py $(GPU); fi

lint: setup
	$(BIN)/ruff check src tests recipes measurements notebooks
	$(BIN)/ruff format --check src tests recipes measurements notebooks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python recipes/prose.py

format: setup
	$(BIN)/ruff check --fix src tests recipes measurements notebooks
	$(BIN)/ruff format src tests recipes measurements notebooks

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

clean:
	rm -rf $(VENV) build site findnemo-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
