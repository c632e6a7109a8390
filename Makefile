# Each target is a line or two that can be typed by hand; docs/reference/make.md says what each one does.
.DEFAULT_GOAL := help
.PHONY: collection help setup up down lint format test test-fast bench inventory lock audit sbom licences release new-stack reference docs

PYTHON_CODE := __main__.py infra policy client ansible tools tests
PYTEST := .venv/bin/python -m pytest

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | column -t -s "$$(printf '\t')"

up: ## set up what is missing, then bring up the dev stack
	@tools/setup control
	@.venv/bin/python -m tools.stacks.dev up

down: ## remove the dev stack: hosts, namespaces, state
	@tools/setup control
	@.venv/bin/python -m tools.stacks.dev down

setup: ## install what tests and lint need
	@tools/setup dev

lint: setup ## check style, types, and Ansible's own lint
	.venv/bin/ruff check $(PYTHON_CODE)
	.venv/bin/ruff format --check $(PYTHON_CODE)
	.venv/bin/mypy
	PATH="$(CURDIR)/.venv/bin:$$PATH" ANSIBLE_HOME="$(CURDIR)/.ansible" .venv/bin/ansible-lint --offline

format: setup ## format the code
	.venv/bin/ruff check --fix $(PYTHON_CODE)
	.venv/bin/ruff format $(PYTHON_CODE)

test-fast: lint ## run lint, and the quick tests that need neither engine nor hosts
	PATH="$$(tools/packages):$$PATH" $(PYTEST) -q -m "not engine and not hosts and not slow" \
		-n 2 --dist loadscope --no-loadscope-reorder

test: lint ## run all tests, on the real engine and on real hosts (root)
	@tools/test

bench: setup ## measure the project beside its peers, in one run (root; make bench HOSTS=10 is a quick look)
	tools/env --dev .venv/bin/python -m tests.bench --hosts $(or $(HOSTS),50) --many $(or $(HOSTS),200)

lock: setup ## regenerate requirements/*.txt
	tools/lock

audit: setup ## look up every locked package in a database of known vulnerabilities
	@tools/audit

sbom: setup ## print the bill of materials of what hosts install, as CycloneDX
	@tools/artefact/sbom

licences: setup ## list the licences of what hosts install
	@tools/artefact/licences

release: setup ## build all files of a release into dist/
	@tools/release

new-stack: ## write Pulumi.NAME.yaml from a template: make new-stack NAME=staging
	@tools/setup control
	@tools/new-stack "$(NAME)"

reference: setup ## regenerate docs/reference from the code
	tools/reference

docs: setup ## build the documentation as a site into build/site
	@tools/site

collection: setup ## build the Ansible collection into build/
	.venv/bin/ansible-galaxy collection build ansible --output-path build --force
