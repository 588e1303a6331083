# `make help` lists the targets. `make check` and then `make fuzz` is exactly what CI runs.
.DEFAULT_GOAL := help
.PHONY: help setup setup-infra setup-checkov setup-policy infra-full run test test-rust test-python lint lint-python lint-rust check format guard bench bench-quick bench-e2e bench-tls bench-reload bench-idle \
    bench-memory bench-border bench-scaling diagram charts lock deny audit fuzz soak clean

PYTHON_BIN := .venv/bin
# As setup.sh finds it: rustup may not have reached PATH yet.
CARGO := $(shell command -v cargo || echo "$${CARGO_HOME:-$$HOME/.cargo}/bin/cargo")
# `smtp_proxy` is run from the checkout, never from a folder that happens to be current.
export PYTHONSAFEPATH := 1

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup: ## virtual environment, pinned packages, Rust extension, command line tools in .venv/bin
	@sh devstack/setup.sh

setup-infra: ## what the AWS stack needs on top: Pulumi and its AWS classes, pinned in constraints-infra.txt
	@sh devstack/setup.sh infra

setup-checkov: ## checkov, pinned in constraints-checkov.txt, in an environment of its own (.venv-checkov)
	@sh devstack/setup.sh checkov

setup-policy: ## what runs pulumi/policy, pinned in constraints-policy.txt, in an environment of its own (.venv-policy)
	@sh devstack/setup.sh policy

run: setup ## all of it on this machine, until Ctrl-C; ARGS="--help" and the like are handed on
	@exec $(PYTHON_BIN)/smtp-proxy dev $(ARGS)

test: setup setup-infra setup-policy test-rust test-python ## every test

test-rust:
	$(CARGO) test --workspace --locked --quiet
	cd core_rs/fuzz && $(CARGO) test --locked --quiet

test-python:
	$(PYTHON_BIN)/python tests/side_by_side.py $(PYTEST_ARGS)

lint: setup setup-infra lint-python lint-rust ## formatters and linters, both languages

lint-python:
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/ruff format --check .
	$(PYTHON_BIN)/mypy
	$(PYTHON_BIN)/python -m mypy.stubtest smtp_proxy._core
	$(PYTHON_BIN)/lint-imports

lint-rust:
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets --locked --quiet -- -D warnings
	cd core_rs/fuzz && $(CARGO) fmt --check && $(CARGO) clippy --all-targets --locked --quiet -- -D warnings

guard: setup ## the protocol's instructions per message, beside the known ones (needs valgrind)
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.guard $(ARGS)

check: lint test guard ## what CI runs first; then it runs `make fuzz`

format: setup ## let the formatters have their way
	$(PYTHON_BIN)/ruff format .
	$(PYTHON_BIN)/ruff check --fix .
	$(CARGO) fmt

bench: setup ## smtp-proxy beside its peers and its limit, about 15 minutes; ARGS are those of benches.load
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.load $(ARGS)

bench-quick: ## the same in about two minutes, to see that it runs
	@$(MAKE) bench ARGS="--quick $(ARGS)"

bench-e2e: setup ## accepted, queued and delivered, beside Postfix doing the same; a 5-minute run, full queues: about 25 minutes
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.load.whole $(ARGS)

bench-tls: setup ## TLS and AUTH, new connections and lasting ones, beside peers and bare handshakes
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.load.tls $(ARGS)

bench-reload: setup ## certificate reloads under a load of handshakes, beside idle TLS sessions
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.load.reload $(ARGS)

bench-idle: setup ## what 10,000 idle sessions cost, and what they cost the busy ones
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.load.idle $(ARGS)

bench-memory: setup ## 1 GiB in 25 MiB messages: the peak beside the configured budget
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.load.memory $(ARGS)

bench-scaling: setup ## workers come and go under a load, beside what `smtp-proxy simulate` says of it; about 4 minutes
	PYTHONSAFEPATH= $(PYTHON_BIN)/python -m benches.load.scaled $(ARGS)

bench-border: setup ## pytest-benchmark: the border and the parser
	$(PYTHON_BIN)/pytest benches/border --benchmark-only $(PYTEST_ARGS)

diagram: setup setup-infra ## docs/aws.svg anew: the AWS stack of production, drawn from its graph
	PYTHONPATH=tests $(PYTHON_BIN)/python -P -m infra_graph.diagram docs/aws.svg

charts: setup ## docs/charts anew: the simulations of docs/CAPACITY.md
	PYTHONPATH=tests $(PYTHON_BIN)/python -P -m capacity_charts

lock: ## make the constraints*.txt anew: every package pinned with hashes, no index address
	@sh devstack/lock.sh

deny: ## licences, bans and sources of the crates (deny.toml), where cargo-deny is installed
	@if command -v cargo-deny >/dev/null 2>&1; then $(CARGO) deny --offline check licenses bans sources; \
	else echo 'deny: cargo-deny is not installed (cargo install cargo-deny); nothing was checked'; fi

audit: ## known vulnerabilities of the pinned packages and crates, as far as the services that know them can be reached
	@sh devstack/audit.sh

fuzz: ## every fuzz target for FUZZ_SECONDS (60) each, with stable Rust; ARGS="data session": those, ARGS=--grow: into the corpus
	@core_rs/fuzz/run.sh $(ARGS)

infra-full: setup setup-infra setup-checkov setup-policy ## the AWS stack at length: checkov, Pulumi's command line, and its whole life on a local AWS; 20 minutes
	@devstack/pulumi.sh
	PYTHONSAFEPATH= $(PYTHON_BIN)/pytest -s tests/infra_full $(PYTEST_ARGS)

soak: setup ## mail under random faults for 20 minutes, every message accounted for; ARGS="--minutes 60 --seed 7" and the like
	PYTHONPATH=tests:pyapp $(PYTHON_BIN)/python -P -m ledger_harness $(ARGS)

clean: ## remove what was built; the data in .data stays
	rm -rf .venv .venv-checkov .venv-policy target build dist .mypy_cache .ruff_cache .pytest_cache
