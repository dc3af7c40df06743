# Thin verbs; the logic is crates/xtask. ON=kind or ON=current-context chooses another Kubernetes for up and down.

# --bin, not --package: cargo then chooses the features of a dependency for the whole workspace, and compiles it once.
# clippy-driver: as xtask itself compiles, so that what they share is compiled once.
XTASK = RUSTC_WORKSPACE_WRAPPER=clippy-driver cargo run --locked --bin xtask --
WHERE = $(if $(ON),--on $(ON)) $(if $(REGISTRY),--registry $(REGISTRY))
LOAD = $(if $(ORDERS),--orders $(ORDERS)) $(if $(RATE),--rate $(RATE))
MOVES = $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM)) $(LOAD)

.DEFAULT_GOAL := help
.PHONY: help up down test test-moves check charts e2e servers bench images manifests fresh ready

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

up: ready ## A Kubernetes, the platform, a sample cluster; one order with its email and SMS
	@$(XTASK) up $(WHERE)

down: ready ## Removes all of that; caches stay
	@$(XTASK) down $(if $(ON),--on $(ON))

test: ready ## Everything that must hold: lints, unit, property and end-to-end tests
	@$(XTASK) test

test-moves: ready ## The long campaign of moving keys: SEEDS=20, FROM=1, ORDERS=200000, RATE=500; goes on where it was interrupted
	@$(XTASK) test-moves $(MOVES)

check: ready ## Formatting, lints and unit tests, for the time between two edits
	@$(XTASK) check

charts: ready ## The charts alone: lint, values, drift, and validation by a cluster left running
	@$(XTASK) charts

e2e: ready ## End-to-end tests alone, on a cluster left running; ONLY=name for some of them
	@$(XTASK) e2e $(ONLY)

servers: ready ## A PostgreSQL with a replica and a RabbitMQ for `cargo test -p`, until Ctrl-C
	@$(XTASK) servers

bench: ready ## The benchmarks, and a scale-out under load; ORDERS=200000, RATE=500
	@$(XTASK) bench $(LOAD)

images: ready ## The images, where they are not up to date
	@$(XTASK) images

manifests: ready ## Renders the charts to deploy/ringwright.yaml
	@$(XTASK) manifests

fresh: ready ## up and test in a temporary clone with empty caches: about an hour
	@$(XTASK) fresh

ready:
	@[ "$$(uname -s)" = Linux ] || { echo "Linux is needed: the cluster's nodes are Linux network namespaces."; exit 1; }
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup (https://rustup.rs); rust-toolchain.toml names the version."; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: install gcc."; exit 1; }
