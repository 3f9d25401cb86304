# Everything Forkyard needs, it installs: system packages through apt, tools into the cache outside the checkout or into
# the tree. What is there is not fetched again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup agent server image python demo serve test bench check

CACHE ?= $(HOME)/.cache/forkyard
export CARGO_TARGET_DIR ?= $(CACHE)/target
CARGO := cargo --locked
IMAGES := $(CACHE)/images
DATA ?= $(CACHE)/data
BIN := $(CARGO_TARGET_DIR)/debug/forkyard

# The agent runs in guests that may hold nothing of the host's: static.
GUEST := x86_64-unknown-linux-gnu
export FORKYARD_AGENT := $(CARGO_TARGET_DIR)/$(GUEST)/release/forkyard-agent

# Advisories would need a database from the net at each run: `cargo deny check advisories` by hand has it.
DENY := $(CACHE)/tools/bin/cargo-deny

VENV := $(CURDIR)/.venv
TOOLS := $(VENV)/.tools
PYTHON := $(VENV)/bin/python

# What makes the calls of the conformance suite, by language; Rust's own is built with it.
EXECUTORS := \
	"python-sync": ["$(PYTHON)", "$(CURDIR)/bindings-python/tests/conformance/sync_executor.py"], \
	"python-async": ["$(PYTHON)", "$(CURDIR)/bindings-python/tests/conformance/async_executor.py"]

help: ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## Install what is needed: QEMU, a C compiler, Rust, Python
	@.ci/setup

agent: setup
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release -p forkyard-agent --target $(GUEST)

server: setup
	$(CARGO) build -p forkyard-server

image: agent server ## Build the images (as root), unless they are there
	$(BIN) image build --image-dir $(IMAGES)

$(TOOLS): bindings-python/requirements-dev.txt | setup
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

python: $(TOOLS) ## Build the Python package into .venv
	cd bindings-python && VIRTUAL_ENV=$(VENV) $(VENV)/bin/maturin develop --quiet --locked

demo: image python ## Run the examples on real microVMs
	.ci/demo $(BIN) $(IMAGES) $(PYTHON)

serve: image ## Serve machines on this host until interrupted
	$(BIN) serve --data-dir $(DATA) --image-dir $(IMAGES)

test: image python ## Run all tests, many of them on real microVMs
	FORKYARD_BIN=$(BIN) FORKYARD_TEST_IMAGES=$(IMAGES) FORKYARD_CONFORMANCE='{$(EXECUTORS)}' $(CARGO) test
	cd bindings-python && FORKYARD_BIN=$(BIN) FORKYARD_TEST_IMAGES=$(IMAGES) $(PYTHON) -m pytest

bench: image python ## Measure, as ratios; ROWS="run_overhead …" for some
	cd bindings-python && VIRTUAL_ENV=$(VENV) $(VENV)/bin/maturin develop --quiet --locked --release
	FORKYARD_TEST_IMAGES=$(IMAGES) FORKYARD_BENCH_DIR=$(CURDIR)/target/bench FORKYARD_BENCH_PYTHON=$(PYTHON) ROWS="$(ROWS)" \
		$(CARGO) bench -p forkyard-server --bench rows

$(DENY): | setup
	cargo install --locked --quiet cargo-deny --version 0.20.2 --root $(CACHE)/tools

check: python $(DENY) ## Formatters, lints, licences, generated files
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(DENY) --log-level error check licenses bans sources
	cd bindings-python && $(PYTHON) tools/unasync.py --check
	cd bindings-python && $(VENV)/bin/ruff check . ../examples/python && $(VENV)/bin/ruff format --check . ../examples/python
	cd bindings-python && $(VENV)/bin/mypy && $(PYTHON) -m mypy.stubtest forkyard._native
