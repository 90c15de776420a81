# The commands of a working day. Everything they make lies in build/; `make help` lists them.

.DEFAULT_GOAL := build
.PHONY: build setup configure demo test prove soak bench test-cuda-libraries test-gpu bench-gpu gpu-tree clean distclean format lint help

cmake_args ?=
gpu_python ?= build/venv/bin/python
gpu_targets := djinn_kernels_cuda djinn_kernels_test gpu_worker_device_cuda_module_module_test

build: configure     ## build build/bin/djinn, build/lib/libdjinn.so and the Python package (default)
	@cmake --build build/cmake
	@scripts/install-python

setup:               ## install what is missing: Debian packages, and a virtual environment in build/venv
	@scripts/setup

configure: setup
	@cmake -G Ninja -S . -B build/cmake -DDJINN_OUTPUT=$(CURDIR)/build $(cmake_args) > build/configure.log 2>&1 \
	    || { cat build/configure.log; exit 1; }

demo: build          ## start a head and two workers, and run two real models on them from unmodified PyTorch
	@scripts/demo

test:                ## everything that must hold, with one line of totals at the end
	@scripts/test

prove: build         ## kill -9 of everything, many times, on GPT-2 124M: results must be the undisturbed run's (an hour)
	@scripts/prove

soak: build          ## look for failures for hours: simulated seeds and live scenarios (hours=8)
	@scripts/soak --hours $(or $(hours),8)

bench: build         ## what docs/benchmarks.md reports, with its references in the same run
	@scripts/bench

test-cuda-libraries: setup ## ask cuDNN and cuBLASLt themselves about our graphs, without a GPU (installs them: 1.3 GB)
	@scripts/test libraries

test-gpu: build      ## prove the CUDA worker on this machine's GPU (docs/gpu.md)
	@cmake --build build/cmake --target $(gpu_targets)
	@$(gpu_python) scripts/test-gpu

bench-gpu: build     ## measure it beside local PyTorch and the memory's bandwidth
	@$(gpu_python) scripts/bench-gpu

gpu-tree: build      ## pack what is carried to a machine with a GPU: build/djinn-gpu.tar.xz
	@cmake --build build/cmake --target $(gpu_targets)
	@build/venv/bin/python scripts/test-gpu --pack build/djinn-gpu.tar.xz

lint: configure        ## the checks of tests/lint only
	@python3 -m unittest discover -b -s tests/lint -p '*_test.py'

format:              ## lay out the C, C++ and Python code as .clang-format and ruff have it
	@scripts/format

clean:               ## remove what was built; keep the virtual environment
	@rm -rf build/cmake build/asan build/tsan build/fuzz build/bin build/lib build/python build/test

distclean:           ## remove build/ altogether
	@rm -rf build

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14
