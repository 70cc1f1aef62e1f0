# Flotilla. `make playground` starts a real cluster, `make test` proves it works; `make help` lists the rest.
# Everything is built in one profile (release) into one target directory outside the checkout, because RocksDB's C++ takes
# some fifteen minutes to compile on two cores and should be compiled once.

SHELL := /bin/bash
.DEFAULT_GOAL := help

CACHE ?= $(HOME)/.cache/flotilla
export CARGO_TARGET_DIR ?= $(CACHE)/target
# Debian's ccache puts compilers of the same name here; where it is not installed this changes nothing.
export PATH := /usr/lib/ccache:$(PATH)

# Always the whole workspace: with `-p`, cargo resolves other features for shared crates and builds them, RocksDB among them,
# once more.
CARGO_BUILD := cargo build --release --workspace
CARGO_TEST := cargo test --release --workspace
# The stages and the simulator run over the in-memory engine and need no RocksDB: a learner's first build takes two minutes.
STAGE_TEST := cargo test --release -p flotilla-tests
FLOTILLA := $(CARGO_TARGET_DIR)/release/flotilla
SIM := $(CARGO_TARGET_DIR)/release/sim

STORES ?= 3
SCHEDULERS ?= 1
# Empty: 2379 for the scheduler and 20160 on for the stores, or free ones where those are taken.
PORT ?=
DATA ?= $(CURDIR)/target/playground

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: deps
deps: ## install or name what the build needs (compiler, libclang)
	@scripts/deps

.PHONY: build
build: deps ## the one binary, flotilla
	$(CARGO_BUILD) --bin flotilla
	@echo "built $(FLOTILLA)"

.PHONY: playground
playground: build ## a real cluster of child processes: STORES=3 SCHEDULERS=1 REGIONS=n REGION_MAX_SIZE=1MiB PORT=n DATA=dir
	$(FLOTILLA) playground --stores $(STORES) --schedulers $(SCHEDULERS) $(addprefix --port ,$(PORT)) --data-dir $(DATA) \
		$(addprefix --regions ,$(REGIONS)) $(addprefix --region-max-size ,$(REGION_MAX_SIZE))

# --- tests --------------------------------------------------------------------------------------------------------------

.PHONY: test
test: deps ## every test: units, stages, real processes, simulator seeds, the published peers
	$(CARGO_TEST)
	$(SIM) --seeds 60
	$(MAKE) --no-print-directory mixed published-client

.PHONY: project1 project2a project2b project2c
project1: ## stage 1: a standalone key-value service
	$(STAGE_TEST) --test project1
project2a: ## stage 2a: the consensus core and RawNode
	$(STAGE_TEST) --test project2a
project2b: ## stage 2b: the replicated store
	$(STAGE_TEST) --test project2b
project2c: ## stage 2c: log compaction and snapshots
	$(STAGE_TEST) --test project2c --test project2c_raft
.PHONY: project3a project3b project3c
project3a: ## stage 3a: membership changes and leader transfer in the consensus core
	$(STAGE_TEST) --test project3a
project3b: ## stage 3b: membership changes, transfers and splits in the store
	$(STAGE_TEST) --test project3b
project3c: ## stage 3c: the scheduler
	$(STAGE_TEST) --test project3c

SEEDS ?= 50
.PHONY: sim
sim: ## the deterministic simulator: SEED=n replays one seed (TRACE=1 shows it), SEEDS=n runs that many
	cargo build --release -p flotilla-tests --bin sim
ifdef SEED
	$(SIM) --seed $(SEED) $(if $(TRACE),--trace)
else
	$(SIM) --seeds $(SEEDS)
endif

.PHONY: planted
planted: ## every planted bug must be caught: prints bug -> seeds needed
	cd tests && CARGO_TARGET_DIR=$(CACHE)/planted cargo run --release --features planted --bin sim -- --planted all

CYCLES ?= 50
.PHONY: crash
crash: deps ## kill -9 among real processes, CYCLES=n times, while regions split, merge and move
	FLOTILLA_CRASH_CYCLES=$(CYCLES) FLOTILLA_STORM_CYCLES=$(CYCLES) $(CARGO_TEST) --test crash --test storm

# Peers with dependency trees of their own, each a workspace apart.
.PHONY: mixed published-client
mixed: ## one Raft group of our nodes and raft-rs 0.7 nodes
	cd tests/mixed && CARGO_TARGET_DIR=$(CACHE)/mixed cargo test
published-client: build ## the published tikv-client crate against a playground
	cd tests/published-client && FLOTILLA_BIN=$(FLOTILLA) CARGO_TARGET_DIR=$(CACHE)/published-client cargo test

.PHONY: bench
bench: build ## beside etcd and this machine's limits, interleaved in one run; prints ratios
	$(FLOTILLA) bench

.PHONY: bench-raft
bench-raft: ## CPU per entry of the raft core, beside raft-rs in the same run
	cd tests/mixed && CARGO_TARGET_DIR=$(CACHE)/mixed cargo bench

# --- the gate (writes nothing) and the fixer (writes) ---------------------------------------------------------------------

.PHONY: verify
verify: deps ## what must hold before a change lands: format, lints, docs, tests, seeds
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	@# The headers are for whoever reads the code, so they are rendered, and may speak of what is private.
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --release --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo "cargo-deny is not installed: skipped (cargo install cargo-deny)"; fi
	$(MAKE) --no-print-directory test

.PHONY: fix
fix: ## format and apply the lints' suggestions
	cargo fmt --all
	cargo clippy --release --workspace --all-targets --fix --allow-dirty

.PHONY: golden
golden: ## rewrite the golden scripts' expected output; review the diff
	UPDATE_GOLDENFILES=1 cargo test --release -p flotilla-raft -p flotilla-engine
