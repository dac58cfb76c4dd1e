# make demo    the newcomer's command: a camera, the server, scores and an alert, live
# make dev     everything for development in .venv
# make test    the test suite; long tests with CI=true or TEST=--long
# make reliability  faults of cameras, workers, server and clients, each with its figure
# make check   lint, types, protos, tests: what CI runs
# make lock    deploy/requirements anew, after a change of pyproject.toml or constraints.txt
# make clean   remove what the above made

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
DEMO ?=
TEST ?=
# Live tests mostly wait and have one of the processes for themselves.
PROCESSES ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := .venv/bin
BUF := node_modules/.bin/buf
# A real RTSP server for the end-to-end tests, the Python that drives it, its network; a clock to
# set; what the rules and dashboards are held against; a Debian to build the image in; what judges
# the systemd unit; a database server; an MQTT broker.
TEST_DEPS := gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0 \
	gstreamer1.0-plugins-base iproute2 python3-gi faketime \
	prometheus prometheus-alertmanager \
	debootstrap debian-archive-keyring systemd postgresql mosquitto

RELIABILITY := $(wildcard tests/e2e/test_*_faults.py tests/e2e/test_push*.py) \
	tests/e2e/test_one_of_many.py tests/e2e/test_planted_passwords.py

# Debian and Ubuntu ship Python without venv; install it where we may.
define need_python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: make $@ PYTHON=python3.12, say" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) apt PACKAGES=$(notdir $(PYTHON))-venv
endef

.PHONY: help demo dev test reliability test-deps check lock format clean apt

help:
	@sed -n 's/^# make/make/p' Makefile

demo: .venv-run/.installed
	@.venv-run/bin/gvvad demo $(DEMO)

dev: .venv/.installed

test: .venv/.installed
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadscope --no-loadscope-reorder $(TEST)

reliability: .venv/.installed
	$(BIN)/python -m pytest --long $(RELIABILITY)

check: .venv/.installed $(BUF)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BUF) lint
	$(BUF) breaking --against protos/baseline.binpb
	stubs=$$(mktemp -d); trap 'rm -rf "$$stubs"' EXIT; \
		PYTHON=$(CURDIR)/$(BIN)/python protos/generate.sh "$$stubs"; \
		for stub in $$(cd "$$stubs" && find . -name '*_pb2*'); do \
			cmp "$$stubs/$$stub" "protos/$$stub" \
				|| { echo "protos/$$stub is stale: run protos/generate.sh" >&2; exit 1; }; \
		done
	$(MAKE) test

# What the image installs, with hashes; tests/deploy says when it is stale.
LOCK := $(BIN)/uv pip compile --quiet --constraint constraints.txt --generate-hashes --universal \
	--python-version 3.11 --no-annotate --custom-compile-command "make lock"
REQUIREMENTS := deploy/requirements
lock: .venv/.installed
	$(LOCK) --extra cpu --extra postgresql pyproject.toml -o $(REQUIREMENTS)/cpu.txt
	$(LOCK) --extra gpu --extra postgresql pyproject.toml $(REQUIREMENTS)/gpu.in -o $(REQUIREMENTS)/gpu.txt
	$(LOCK) --extra train --extra export --extra cpu pyproject.toml -o $(REQUIREMENTS)/train.txt
	$(LOCK) $(REQUIREMENTS)/build.in -o $(REQUIREMENTS)/build.txt

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv-run/.installed: pyproject.toml constraints.txt
	$(need_python)
	@echo "Making .venv-run with the lean runtime, about a minute the first time ..." >&2
	@test -x .venv-run/bin/pip || $(PYTHON) -m venv .venv-run
	@.venv-run/bin/python -m pip install --quiet -c constraints.txt -e ".[cpu,demo]"
	@touch $@

.venv/.installed: pyproject.toml constraints.txt
	$(need_python)
	@echo "Making .venv with everything, a few minutes the first time ..." >&2
	@test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet -c constraints.txt -e ".[cpu,demo,train,export,dev]"
	@touch $@

$(BUF): package.json
	@command -v npm >/dev/null || { echo "make check needs npm, for buf" >&2; exit 2; }
	@npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

test-deps:
	@$(MAKE) apt PACKAGES="$(TEST_DEPS)"

apt:
	@command -v apt-get >/dev/null || { echo "install $(PACKAGES) first" >&2; exit 2; }
	@as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
		$$as_root apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -qq -y --no-install-recommends \
			$(PACKAGES) >/dev/null

clean:
	rm -rf .venv .venv-run build dist demo-out node_modules *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
