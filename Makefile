# Everything a person types in this project. Product and tests share one build: the release profile.
# Two commands start from nothing: `make demo` shows the product, `make test` proves it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Programs that `make setup` brings (nats-server, cargo-deny) come first.
TOOLS := $(shell tests/setup/setup.sh --path)
export PATH := $(TOOLS):$(PATH):/usr/sbin:/sbin

BOXYARD := target/release/boxyard
DATA_DIR ?= $(CURDIR)/target/up
HOST ?= unix://$(DATA_DIR)/docker.sock
WORKERS ?= 1

.PHONY: help setup build demo up down test bench lint fmt

help:
	@echo "make setup  install what Boxyard and its tests need (Debian 12, root)"
	@echo "make build  build all programs in the release profile"
	@echo "make demo   walk through the tutorial on a private Boxyard, showing every command"
	@echo "make up     start a Boxyard that stays; make down stops it (DATA_DIR=, HOST=, WORKERS=)"
	@echo "make test   all tests        make bench  speed and memory beside dockerd"
	@echo "make lint   rustfmt, clippy, licences        make fmt  format the code"

setup:
	@tests/setup/setup.sh

build: setup
	cargo build --release --workspace --bins --locked

demo: build
	@tests/demo/demo.sh

# Ready when it returns; the line that it prints says how to point the docker command at it.
up: build
	@mkdir -p $(DATA_DIR)
	@$(BOXYARD) up --data-dir $(DATA_DIR) --host $(HOST) --workers $(WORKERS) --detach

down:
	@$(BOXYARD) down --data-dir $(DATA_DIR)

test: build
	cargo nextest run --release --workspace --locked

# ROWS="--json FILE graph:" measures some rows only, and writes them as JSON, too.
bench: build
	cargo run --release --locked --package bench -- $(ROWS)

lint: setup
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked -- -D warnings
	cargo deny --locked --log-level error check licenses bans sources

fmt:
	cargo fmt --all
