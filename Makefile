# `make` alone lists the targets. Every target fetches what it needs first and says so.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup web serve demo test test-compose check openapi recordings bench screens chaos up down

# Extra arguments for the command behind a target: make test ARGS="-k approvals -x"
ARGS ?=
# Tests wait a lot: three processes keep two cores busy. A file's tests stay together, in order: they share its server.
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make the development environment in .venv
	@scripts/bootstrap

web: setup ## Build the web UI, which the server has at /app/ (`serve` does so by itself)
	@scripts/web-build

serve: setup ## Start a server on http://127.0.0.1:8000 (no Docker, database or API key needed)
	@scripts/sandbox-ready
	@scripts/web-build || echo "serve: no new web UI, see above; starting with what is there" >&2
	@exec .venv/bin/moorage serve $(ARGS)

demo: setup ## Play one whole conversation against a server of its own, then stop it
	@scripts/sandbox-ready
	@exec .venv/bin/moorage demo $(ARGS)

test: setup ## Run the tests (starts a Docker engine and builds the sandbox image when missing)
	@scripts/web-build
	@scripts/web-npm --silent run budget
	@scripts/web-npm --silent test
	@scripts/docker-engine start
	@scripts/sandbox-image
	@scripts/node-clients
	@scripts/chromium
	@.venv/bin/pytest $(PARALLEL) $(ARGS)

test-compose: setup ## Try the Compose installation in a project of its own, then take it down
	@scripts/test-compose

check: setup ## Lint, check the formatting, the types and the layers
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyright
	@.venv/bin/lint-imports
	@scripts/web-npm --silent run check

openapi: setup ## Write the API's description to design/openapi.json
	@.venv/bin/moorage openapi > design/openapi.json

recordings: setup ## Write the event logs anew that the web UI's tests replay
	@WRITE_RECORDINGS=1 .venv/bin/pytest --quiet tests/api/test_recordings.py

bench: setup ## Measure the server on this machine
	@scripts/docker-engine start
	@scripts/sandbox-image
	@.venv/bin/python -m tests.bench $(ARGS)

screens: setup ## Take the pictures of the web UI in design/screens: make screens ARGS="inbox 390"
	@scripts/web-build
	@scripts/docker-engine start
	@scripts/sandbox-image
	@.venv/bin/python -m tests.web.screens $(ARGS)

chaos: setup ## Break the server at random for 10 minutes and read back what remained: make chaos ARGS="--seed 7"
	@scripts/docker-engine start
	@scripts/sandbox-image
	@.venv/bin/python -m tests.chaos $(ARGS)

up: ## Start server, worker, broker and Postgres with Docker Compose (needs .env)
	@SANDBOX=docker scripts/sandbox-ready
	@scripts/compose up --build --detach $(ARGS)

down: ## Stop what `up` started, and the Docker engine if it is our own
	@scripts/compose down
	@scripts/docker-engine stop
