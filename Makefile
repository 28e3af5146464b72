# Everything runs from a virtual environment of its own, .venv; each stamp in it says that an extra is installed.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
METADATA := pyproject.toml setup.cfg

.PHONY: demo test lint docs bench bench-tensorflow gpu clean

demo: $(VENV)/.installed
	$(BIN)/fusedloss demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-dev
	$(BIN)/python -m bench.targets
	$(BIN)/python -m pytest bench --results bench/results/speed.json
	$(BIN)/python -m bench.scaling
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.cold
	$(BIN)/python -m bench.publish

# On a machine with a CUDA device: with the Python there, its PyTorch, numba-cuda and pytest, and no network
gpu:
	$(PYTHON) -m bench.gpu

# TensorFlow in an environment of its own, its figures put beside the others'
bench-tensorflow: $(VENV)-tensorflow/.installed
	$(VENV)-tensorflow/$(notdir $(BIN))/python -m pytest bench --against tensorflow --results bench/results/tensorflow.json
	$(VENV)-tensorflow/$(notdir $(BIN))/python -m bench.publish

clean:
	rm -rf $(VENV) $(VENV)-tensorflow build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src kernels tests bench -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(METADATA) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# Frameworks are large: what of them is imported is compiled then
$(VENV)/.installed-dev: $(METADATA) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable ".[dev]"
	@touch $@ $(VENV)/.installed

$(VENV)-tensorflow/.installed: $(METADATA)
	$(PYTHON) -m venv $(@D)
	$(@D)/$(notdir $(BIN))/python -m pip install --quiet --disable-pip-version-check --editable ".[bfloat16]" \
		pytest-benchmark tensorflow
	@touch $@
