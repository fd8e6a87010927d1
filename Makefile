# Each target is a line or two that hide nothing. `make help` lists them.

.PHONY: help demo test lint deny audit fmt openapi image stackone fuzz hub soak bench
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

demo: ## Start the simulator and the gateway, link two accounts, and say what to try (ARGS="--users 1000")
	cargo run --locked --quiet -- demo $(or $(ARGS),--data-dir demo-data)

test: ## Run every test (PostgreSQL too, when ROLECALL_TEST_POSTGRES_URL is set)
	cargo test --locked --workspace
	test -z "$$ROLECALL_TEST_POSTGRES_URL" || ROLECALL_TEST_STORE=postgres cargo test --locked --test api

lint: ## rustfmt, clippy and rustdoc, warnings denied
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

deny: ## Licences, banned crates and sources (needs cargo-deny)
	cargo deny --locked check licenses bans sources

audit: ## Known vulnerabilities (needs cargo-deny and a network)
	cargo deny --locked check advisories

fmt: ## Format the code
	cargo fmt --all

openapi: ## Rewrite openapi/openapi.json from the route list, with examples from the simulator's world
	ROLECALL_WRITE_EXAMPLES=1 cargo test --locked --quiet --test api the_examples_of_the_document
	cargo run --locked --quiet -- openapi > openapi/openapi.json.new && mv openapi/openapi.json.new openapi/openapi.json

image: ## Build the container image (needs docker and a network)
	docker build --tag rolecall .

stackone: ## Every call of StackOne's own SDK against a demo (needs node, npm and a network)
	tests/stackone/run

fuzz: ## The API document against Spectral's rules, and a demo against the document (needs node, npm, python3 and a network)
	tests/openapi/run

hub: ## Every page of the hub in Chromium, with axe (needs chromium, node, npm and a network; SHOTS=DIR: leave screenshots)
	tests/hub/run

soak: ## Every proof at full size, and Smartsheet's own SDKs against the simulator (needs a JDK and Debian's postgresql, pgbouncer, faketime, nginx and prometheus; ROLECALL_SOAK_SEED=n: one seed)
	ROLECALL_SOAK=1 cargo test --locked --profile release-fast --test soak -- --nocapture --test-threads 1
	ROLECALL_SOAK=1 cargo test --locked --profile release-fast --test api -- --test-threads 1 truth::every_persona token_replies::no_field
	simulator/sdk/run

bench: ## Speed and memory as ratios, each with its target (ARGS=reads: a part; BENCH_STRICT=1: a miss fails)
	cargo bench --locked --profile $(or $(BENCH_PROFILE),release) --bench ratios -- $(ARGS)
