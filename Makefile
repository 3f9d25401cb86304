# Everything Forkyard needs, it installs: system packages through apt, tools into the cache outside the checkout or into
# the tree. What is there is not fetched again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup agent server image python node golib go demo serve test bench package check

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

# Where Node is missing or old, setup puts one here.
export PATH := $(CACHE)/tools/node/bin:$(PATH)
MODULES := bindings-node/node_modules/.package-lock.json

GO := $(CURDIR)/.ci/go
GO_PLATFORM := $(shell uname -s | tr A-Z a-z)_$(subst x86_64,amd64,$(subst aarch64,arm64,$(shell uname -m)))
GO_LIBRARY := bindings-go/lib/$(GO_PLATFORM)/libforkyard_go.a
# With its symbols: what it exports is read from them.
GO_GENERATE := $(CARGO_TARGET_DIR)/debug/forkyard-bindgen-go $(GO_LIBRARY)

# What makes the calls of the conformance suite, by language; Rust's own is built with it.
GO_EXECUTOR := $(CARGO_TARGET_DIR)/debug/conformance-go
EXECUTORS := \
	"python-sync": ["$(PYTHON)", "$(CURDIR)/bindings-python/tests/conformance/sync_executor.py"], \
	"python-async": ["$(PYTHON)", "$(CURDIR)/bindings-python/tests/conformance/async_executor.py"], \
	"node": ["node", "$(CURDIR)/bindings-node/dist/test/bindings-node/tests/conformance/executor.js"], \
	"go": ["$(GO_EXECUTOR)"]
# Anew: Go does not see that the library it links has changed.
GO_EXECUTOR_BUILD := rm -f $(GO_EXECUTOR) && cd bindings-go && $(GO) build -o $(GO_EXECUTOR) ./internal/conformance

help: ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## Install what is needed: QEMU, a C compiler, Rust, Python, Node
	@TOOLS=$(CACHE)/tools .ci/setup

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

$(MODULES): bindings-node/package-lock.json | setup
	cd bindings-node && npm ci --ignore-scripts --no-progress --silent
	touch $@

node: $(MODULES) ## Build the npm package, and its tests and examples
	$(CARGO) build -p forkyard-node
	cp --remove-destination $(CARGO_TARGET_DIR)/debug/libforkyard_node.so bindings-node/forkyard.node
	rm -rf bindings-node/dist
	cd bindings-node && npm run --silent build && npm run --silent build:test

golib: setup
	$(CARGO) build -p forkyard-go -p forkyard-bindgen-go
	mkdir -p $(dir $(GO_LIBRARY))
	cp $(CARGO_TARGET_DIR)/debug/libforkyard_go.a $(GO_LIBRARY)

go: golib ## Build the Go package's library and write its generated files
	$(GO_GENERATE) bindings-go
	$(GO) gofmt -w bindings-go/*_gen.go

demo: image python ## Run the examples on real microVMs
	.ci/serving $(BIN) $(IMAGES) .ci/demo $(PYTHON)

serve: image ## Serve machines on this host until interrupted
	$(BIN) serve --data-dir $(DATA) --image-dir $(IMAGES)

test: image python node golib ## Run all tests, many of them on real microVMs
	$(CARGO) build --examples
	$(GO_EXECUTOR_BUILD)
	FORKYARD_BIN=$(BIN) FORKYARD_TEST_IMAGES=$(IMAGES) FORKYARD_CONFORMANCE='{$(EXECUTORS)}' $(CARGO) test --lib --bins --tests
	.ci/serving $(BIN) $(IMAGES) $(CARGO) test --doc
	cd bindings-python && FORKYARD_BIN=$(BIN) FORKYARD_TEST_IMAGES=$(IMAGES) $(PYTHON) -m pytest
	cd bindings-node && FORKYARD_BIN=$(BIN) FORKYARD_TEST_IMAGES=$(IMAGES) npm run --silent test
	$(CARGO) test -p forkyard-bindgen-go
	cd bindings-go && FORKYARD_BIN=$(BIN) FORKYARD_TEST_IMAGES=$(IMAGES) $(GO) test -count=1 -timeout 30m -race ./...
	cd bindings-go && FORKYARD_BIN=$(BIN) FORKYARD_TEST_IMAGES=$(IMAGES) GOEXPERIMENT=cgocheck2 \
		$(GO) test -count=1 -run 'Cross|Command|Process|Handle' ./...

bench: image python node ## Measure, as ratios; ROWS="run_overhead …" for some
	cd bindings-python && VIRTUAL_ENV=$(VENV) $(VENV)/bin/maturin develop --quiet --locked --release
	$(CARGO) build --release -p forkyard-node -p forkyard-go
	cp --remove-destination $(CARGO_TARGET_DIR)/release/libforkyard_node.so bindings-node/forkyard.node
	mkdir -p $(dir $(GO_LIBRARY)) target/bench
	cp $(CARGO_TARGET_DIR)/release/libforkyard_go.a $(GO_LIBRARY)
	cd bindings-go && $(GO) build -o $(CURDIR)/target/bench/go-jobs ./bench
	FORKYARD_TEST_IMAGES=$(IMAGES) FORKYARD_BENCH_DIR=$(CURDIR)/target/bench FORKYARD_BENCH_PYTHON=$(PYTHON) \
		FORKYARD_BENCH_NODE=node FORKYARD_BENCH_GO=$(CURDIR)/target/bench/go-jobs ROWS="$(ROWS)" \
		$(CARGO) bench -p forkyard-server --bench rows

package: image python node ## Build wheel, npm package and Go module into target/package, and try each in an empty environment
	.ci/packages $(CURDIR)/target/package $(VENV)/bin/maturin
	.ci/serving $(BIN) $(IMAGES) .ci/packaged $(CURDIR)/target/package

$(DENY): | setup
	cargo install --locked --quiet cargo-deny --version 0.20.2 --root $(CACHE)/tools

check: python node golib $(DENY) ## Formatters, lints, licences, generated files
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --no-deps
	$(DENY) --log-level error check licenses bans sources
	cd bindings-python && $(PYTHON) tools/unasync.py --check
	cd bindings-python && $(VENV)/bin/ruff check . ../examples/python ../server/tests
	cd bindings-python && $(VENV)/bin/ruff format --check . ../examples/python ../server/tests
	cd bindings-python && $(VENV)/bin/mypy && $(PYTHON) -m mypy.stubtest forkyard._native
	cd bindings-node && npm run --silent typegen -- --check
	bindings-node/node_modules/.bin/biome ci .
	test -z "$$($(GO) gofmt -l bindings-go examples/go | tee /dev/stderr)"
	cd bindings-go && $(GO) vet ./... && cd ../examples/go && $(GO) vet ./...
	$(GO_EXECUTOR_BUILD)
	FORKYARD_CONFORMANCE='{$(EXECUTORS)}' $(CARGO) test --quiet -p forkyard-conformance --test conformance -- --surfaces
	rm -rf target/go && mkdir -p target/go && cp bindings-go/uniffi.toml target/go
	$(GO_GENERATE) target/go && $(GO) gofmt -w target/go/*_gen.go
	for file in target/go/*_gen.*; do diff -u "bindings-go/$${file##*/}" "$$file"; done
