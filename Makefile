# Every target does its own set-up: .venv, the packages, and the extension once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SILENT:
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
# In a terminal pip shows its progress; in a pipe it says only what goes wrong.
PIP := $(PY) -m pip install --disable-pip-version-check $(if $(MAKE_TERMOUT),,-qq)
# One thread each, since pytest-xdist fills the cores; tests that need two set two.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto

BACKEND := $(wildcard _build_backend/*.py)
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h')
FORMATTED := $(SOURCES) $(shell find csrc tests -name '*.cu' -o -name '*.cuh' -o -path 'tests/*.cpp' -o -path 'tests/*.h')
BUILD_LOG := build/build.log

.PHONY: help demo test test-slow test-all cuda-check lint format bench build clean distclean FORCE

help:  ## this list
	sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' Makefile | column -t -s '|'

demo: build  ## train forecasters on a real series, and see how they do (ARGS= for options)
	$(PY) -m rnncells.forecast demo $(ARGS)

test: build  ## the quick tests
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: build  ## the full grids
	$(PYTEST) -m slow $(ARGS)

test-all: test test-slow  ## all tests

cuda-check: $(VENV)/.installed  ## build the CUDA engine with a CUDA torch of its own (no GPU needed)
	$(PY) -m tests.cuda_check $(ARGS)

lint: $(VENV)/.installed  ## ruff, mypy, clang-format
	$(PY) -m ruff check --quiet
	$(PY) -m ruff format --check --quiet
	$(PY) -m mypy --no-error-summary
	$(VENV)/bin/clang-format --dry-run -Werror $(FORMATTED)
	echo "lint: clean"

format: $(VENV)/.installed  ## lay out Python and C++ as lint wants it
	$(PY) -m ruff check --fix --quiet
	$(PY) -m ruff format --quiet
	$(VENV)/bin/clang-format -i $(FORMATTED)

bench: build $(VENV)/.bench  ## time the layers against torch.nn and others (ARGS= for options)
	$(PY) -m bench.cpu $(ARGS)

build: $(VENV)/.extension $(VENV)/.installed  ## set up .venv and compile what changed

clean:  ## remove what was built
	rm -rf build dist *.egg-info rnncells/*.so $(VENV)/.extension
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean  ## remove .venv and .venv-cuda too
	rm -rf $(VENV) .venv-cuda

# Refused here, in one sentence each: an old Python, no venv module, no compiler, no Python.h.
$(VENV)/.python:
	command -v $(PYTHON) >/dev/null || \
	  { echo "rnncells needs Python 3.11 or later, and $(PYTHON) was not found." >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "rnncells needs Python 3.11 or later, and $$($(PYTHON) --version) is too old:" \
	         "name a newer one, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) lacks the venv module: install it," \
	         "for example with 'apt install python3-venv'." >&2; exit 1; }
	$(PYTHON) -m _build_backend.toolchain
	echo "making $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch first and once: an isolated build would download it a second time.
$(VENV)/.torch: $(VENV)/.python _build_backend/torch_choice.py
	echo "installing torch and the build's tools (minutes, the first time)"
	$(PIP) "setuptools>=77" ninja $$($(PY) -m _build_backend.torch_choice)
	touch $@

# The log is kept; shown are the files as they are compiled, and warnings.
$(VENV)/.extension: $(VENV)/.torch $(SOURCES) $(BACKEND) setup.py pyproject.toml \
                    $(if $(wildcard rnncells/_C.*.so),,FORCE)
	mkdir -p build
	echo "compiling the extension (log: $(BUILD_LOG))"
	start=$$SECONDS; \
	$(PY) setup.py build_ext --inplace 2>&1 | tee $(BUILD_LOG) | \
	  sed -unE 's#^(\[[0-9]+/[0-9]+\]).* -c [^ ]*/(csrc/[^ ]+).*#  \1 \2#p; /warning:/p' || \
	  { tail -n 40 $(BUILD_LOG) >&2; exit 1; }; \
	echo "compiled in $$((SECONDS - start)) s"
	touch $@

$(VENV)/.installed: $(BACKEND) setup.py pyproject.toml | $(VENV)/.extension
	echo "installing rnncells and what its tests and demo need"
	$(PIP) --no-build-isolation --editable '.[forecast,test,ecosystem,onnx,lint,cross]'
	touch $@

# Only for 'make bench': JAX, Flax, Keras and ONNX Runtime.
$(VENV)/.bench: pyproject.toml | $(VENV)/.installed
	echo "installing those whom the benchmarks time beside us"
	$(PIP) --no-build-isolation --editable '.[bench]'
	touch $@
