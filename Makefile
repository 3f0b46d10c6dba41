# A short front for CMake's presets: `make help` says what there is.
GPU ?= auto
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
CTEST_ARGS ?=
# The Python whose PyTorch the package is tested with and wheels are built by.
PYTHON ?= python3
python_path = $(abspath $(shell command -v $(PYTHON)))

.DEFAULT_GOAL := help
.PHONY: help tune test check format device install wheel results clean toolkit python-package

help:
	@echo 'make tune GPU=a40       build w4tune and run: w4tune --gpu a40 (GPU=auto: the one here)'
	@echo 'make test               build with sanitizers and run every test'
	@echo 'make check              check the format and run clang-tidy'
	@echo 'make format             format the sources'
	@echo 'make device             build what can be carried to another Linux machine'
	@echo 'make wheel              build the Python package into dist/ (PYTHON=... the one to use)'
	@echo 'make results            bring results/summary.md and results/plots up to date'
	@echo 'make install PREFIX=... install the tool, libw4tune and its headers'
	@echo 'make clean              remove build/'

tune: packages-build toolkit
	cmake --preset release
	cmake --build --preset release --parallel $(JOBS) --target w4tune
	build/release/cli/w4tune --gpu $(GPU) $(ARGS)

test: packages-build toolkit python-package
	-@$(MAKE) --no-print-directory packages-browser
	cmake --preset dev -DW4TUNE_PYTHON=$(python_path)
	cmake --build --preset dev --parallel $(JOBS)
	ctest --preset dev --parallel $(JOBS) $(CTEST_ARGS)

# What the tests labelled python need; they skip, saying why, where PyTorch is missing.
python-package: packages-build toolkit
	@! $(PYTHON) -c 'import torch, pytest' 2>/dev/null || { \
	  cmake --preset python -DPython3_EXECUTABLE=$(python_path) && \
	  cmake --build --preset python --parallel $(JOBS); }

check: toolkit
	cmake --preset tidy
	cmake --build --preset tidy --parallel $(JOBS) -- -k 0

format: toolkit
	cmake --preset tidy
	cmake --build --preset tidy --target format

device: packages-build toolkit
	cmake --preset device
	cmake --build --preset device --parallel $(JOBS)

install: packages-build toolkit
	cmake --preset release
	cmake --build --preset release --parallel $(JOBS) --target w4tune w4tune_runtime
	cmake --install build/release --prefix $(PREFIX)

wheel: packages-build toolkit
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist ./python

results: packages-build toolkit
	cmake --preset release
	cmake --build --preset release --parallel $(JOBS) --target w4tune
	rm -rf results/plots
	build/release/cli/w4tune report --folder results

clean:
	rm -rf build dist

toolkit: packages-build
	@cmake -P cmake/cuda_toolkit.cmake 2>/dev/null

# Installs the packages of one line of cmake/packages.txt that are missing; where there is no dpkg,
# CMake says what it does not find.
packages-%:
	@command -v dpkg-query >/dev/null || exit 0; \
	missing=; \
	for package in $$(sed -n 's/^$*: //p' cmake/packages.txt); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q '^install ok' || \
	    missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "Installing$$missing"; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
