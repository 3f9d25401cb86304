# Everything Forkyard needs, it installs: system packages through apt, tools into the cache outside the checkout.
# What is there is not fetched again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup agent image serve test check

CACHE ?= $(HOME)/.cache/forkyard
export CARGO_TARGET_DIR ?= $(CACHE)/target
CARGO := cargo --locked
IMAGES := $(CACHE)/images
DATA ?= $(CACHE)/data

# The agent runs in guests that may hold nothing of the host's: static.
GUEST := x86_64-unknown-linux-gnu
export FORKYARD_AGENT := $(CARGO_TARGET_DIR)/$(GUEST)/release/forkyard-agent

help: ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## Install what is needed: QEMU, a C compiler, a Rust toolchain
	@.ci/setup

agent: setup
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release -p forkyard-agent --target $(GUEST)

image: agent ## Build the image 'base' (as root), unless it is there
	$(CARGO) run -p forkyard-server -- image build base --image-dir $(IMAGES)

serve: image ## Serve machines on this host until interrupted
	$(CARGO) run -p forkyard-server -- serve --data-dir $(DATA) --image-dir $(IMAGES)

test: image ## Run all tests, one of them on a real microVM
	FORKYARD_TEST_IMAGES=$(IMAGES) $(CARGO) test

check: setup ## Formatters and lints
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
