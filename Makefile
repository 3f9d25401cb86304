# Everything Forkyard needs, it installs: system packages through apt, tools into the cache outside the checkout.
# What is there is not fetched again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup test check

CACHE ?= $(HOME)/.cache/forkyard
export CARGO_TARGET_DIR ?= $(CACHE)/target
CARGO := cargo --locked

help: ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## Install what is needed: QEMU, a C compiler, a Rust toolchain
	@.ci/setup

test: setup ## Run all tests
	$(CARGO) test

check: setup ## Formatters and lints
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
