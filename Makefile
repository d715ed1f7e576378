# What one types here; CI calls the same. `make help` lists it all.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
PORT ?= 3000
# The address to listen on; 0.0.0.0 lets other machines in.
HOST ?= 127.0.0.1
# What inference runs on: cpu or gpu, each in an environment of its own.
RUNTIME ?= cpu
VENV := .venv$(if $(filter gpu,$(RUNTIME)),-gpu)
BIN := $(VENV)/bin

# Sent nowhere: BentoML and ONNX Runtime report their use unless told not to.
export BENTOML_DO_NOT_TRACK := True
export ORT_DISABLE_TELEMETRY := 1

CIFAR_TRAIN ?= ../shared/data/cifar10-train.zip
CIFAR_TEST ?= ../shared/data/cifar10-test.zip

# More for pytest: make test-slow TEST_OPTIONS=--all-images
TEST_OPTIONS ?=
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# A file's tests share what they start; files go out in order, or those of one long test would come last.
IN_PARALLEL := --dist loadfile --no-loadscope-reorder $(TEST_OPTIONS)

BENCH_OUT ?= build/bench
BENCH_STORE ?=
BENCH_OPTIONS ?=

# Modules are compiled as they are imported: of PyTorch's and others' tens of thousands, few ever are. What they compile to
# must be kept then, or every process would compile all that it imports: 1 s of CPU for serving, 1.5 with PyTorch.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-input --no-compile

.PHONY: help serve test test-slow test-reliability test-container test-gpu system-tools reliability-tools container-tools lint types format bench install \
	install-dev lock audit licenses sbom release-check export-default clean

help: ## List these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | while IFS='|' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not found; install Python 3.11, or name it: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "make: $(PYTHON) is not Python 3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: this Python lacks its venv module; on Debian and Ubuntu: apt-get install python3.11-venv" >&2; exit 1; }
	@echo "Making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# The marks say which lock file was installed last; an unchanged one is not installed again.
$(VENV)/.serve-$(RUNTIME): requirements/$(RUNTIME).lock | $(BIN)/python
	@echo "Installing what serving needs (requirements/$(RUNTIME).lock); this takes a minute the first time"
	@$(PIP_INSTALL) --quiet --require-hashes -r $<
	@touch $@

# On GPUs what gates and tests need, without PyTorch, which wants another cuDNN.
DEV_LOCK := requirements/$(if $(filter gpu,$(RUNTIME)),gpu-dev,dev).lock

$(VENV)/.dev: $(DEV_LOCK) | $(BIN)/python
	@echo "Installing $(if $(filter gpu,$(RUNTIME)),what is used on GPUs,everything, PyTorch included) ($<); this takes minutes and gigabytes the first time"
	@$(PIP_INSTALL) --require-hashes -r $<
	@touch $@ $(VENV)/.serve-$(RUNTIME)

install: $(VENV)/.serve-$(RUNTIME) ## Install what serving needs (RUNTIME=cpu, the default, or gpu)

install-dev: $(VENV)/.dev ## Install everything: serving, export, tests (RUNTIME=gpu: serving, gates, tests on GPUs)

serve: install ## Serve the embedded model on PORT (default 3000) of HOST (default this machine only)
	@exec $(BIN)/python -m service serve --host $(HOST) --port $(PORT)

test: install-dev ## Run the tests
	@$(PYTEST) -m "not slow and not reliability and not container" -n 2 $(IN_PARALLEL)

# What tests use besides Python packages, by command and Debian package. Without them their tests are skipped.
SLOW_TOOLS := chromium:chromium promtool:prometheus kubectl:kubernetes-client
RELIABILITY_TOOLS := faketime:faketime
CONTAINER_TOOLS := buildah:buildah podman:podman runc:runc debootstrap:debootstrap docker-compose:docker-compose promtool:prometheus

define install_tools
@missing=""; for tool in $(1); do command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
if [ -z "$$missing" ]; then exit 0; fi; \
if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "Installing$$missing for the tests"; \
	apt-get update -qq || true; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null \
		|| echo "make: not installed:$$missing; the tests that need them are skipped" >&2; \
else echo "make: not found:$$missing; the tests that need them are skipped" >&2; fi
endef

system-tools: ## Install what slow tests use of the system (Chromium, Prometheus), where this is Debian and you are root
	$(call install_tools,$(SLOW_TOOLS))

container-tools: ## Install what container tests use of the system (buildah, podman), where this is Debian and you are root
	$(call install_tools,$(CONTAINER_TOOLS))

test-slow: install-dev system-tools ## Run the slow tests: whole exports, accuracy over HTTP, every command of the documents
	@$(PYTEST) -m "slow and not reliability and not container" -n 3 $(IN_PARALLEL) --durations 30

reliability-tools: ## Install what tests of faults use of the system (faketime), where this is Debian and you are root
	$(call install_tools,$(RELIABILITY_TOOLS))

test-reliability: install-dev reliability-tools ## Load and break a running service; prints what its promises came to
	@$(PYTEST) tests/reliability tests/security -m reliability -s

test-container: install-dev container-tools ## Build the image and run it, where buildah and podman are
	@$(PYTEST) tests/container -m container -rs

lint: install-dev ## Check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install-dev ## Check types
	@$(BIN)/mypy

test-gpu: ## Run the tests that need an NVIDIA GPU, on onnxruntime-gpu; without one they say what is missing
	@$(MAKE) --no-print-directory install-dev RUNTIME=gpu VENV=.venv-gpu
	@.venv-gpu/bin/python -m pytest tests/gpu tests/service/providers

audit: install-dev ## Look for risky code, and for known vulnerabilities of what is locked; needs the internet
	@$(BIN)/bandit -q -c pyproject.toml -r service export model_store requirements
	@$(BIN)/python -m requirements.audit

licenses: install-dev ## List the licences of what is shipped in build/licenses.md; fails on one that is not allowed
	@$(BIN)/python -m requirements.licenses --out build/licenses.md

sbom: install-dev ## Make the bill of materials of what is shipped: build/sbom.cdx.json
	@$(BIN)/python -m requirements.sbom --out build/sbom.cdx.json

release-check: ## Check that what is committed can be released, in a clean clone (an hour)
	@.ci/release-check

format: install-dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# make bench BENCH_STORE=models BENCH_OPTIONS="--model mine --precision int8" measures another model, too.
bench: install-dev ## Measure the service: five minutes, a page with plots in build/bench
	@$(BIN)/python -m benchmarks.suite --out $(BENCH_OUT) $(if $(BENCH_STORE),--store $(BENCH_STORE)) $(BENCH_OPTIONS)

lock: install-dev ## Renew the lock files from pyproject.toml (UPGRADE=1 takes newer versions)
	@$(call compile,dev) --extra cpu --extra export --extra parquet --extra ray --extra s3 --extra traces --extra dev --extra bench
	@$(call compile,cpu) --extra cpu --constraint requirements/dev.lock
	@$(call compile,gpu) --extra gpu --constraint requirements/cpu.lock
	@$(call compile,gpu-dev) --extra gpu --extra gpu-dev --constraint requirements/gpu.lock \
		--constraint <(sed -nE '/^nvidia-/d; s/^([a-z0-9._-]+==[^\\]+).*/\1/p' requirements/dev.lock)
	@$(call compile,remote) --extra s3 --extra gcs --extra azure --extra traces --constraint requirements/dev.lock

# What is shipped is of the versions that are tested.
compile = $(BIN)/uv pip compile pyproject.toml -o requirements/$(1).lock $(LOCK_OPTIONS)

LOCK_OPTIONS = --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(if $(UPGRADE),--upgrade)

# The steps before the last are versions 1 and 2 of a store of their own; the tree keeps the whole model alone.
DEFAULT := cifar10-resnet16
DEFAULT_STORE := build/models
# Fails where bf16 cannot be measured: other CPUs than Intel's, or older ones.
BF16 := 'from export.variants.gate_providers import check_provider; check_provider("openvino", "bf16")'

export-default: install-dev ## Train, export, quantize, calibrate: the embedded model anew (an hour and a half on two cores)
	@$(BIN)/python -m export train --images $(CIFAR_TRAIN) --validate $(CIFAR_TEST) --output build/default.pth
	@rm -rf $(DEFAULT_STORE)
	@$(BIN)/python -m export build/default.pth --name $(DEFAULT) --store $(DEFAULT_STORE) --images $(CIFAR_TEST) \
		--trained-on "the 50,000 training images of CIFAR-10 (32x32 pixels), re-compressed as JPEG" \
		--limit "Trained and measured on images re-compressed as JPEG: accuracy is below published figures on the originals."
	@$(BIN)/python -m export quantize $(DEFAULT) --store $(DEFAULT_STORE) --calibrate $(CIFAR_TRAIN) --validate $(CIFAR_TEST) \
		--precision int8 $(if $(shell $(BIN)/python -c $(BF16) 2>/dev/null && echo yes),--precision bf16)
	@$(BIN)/python -m export calibrate $(DEFAULT) --store $(DEFAULT_STORE) --images $(CIFAR_TEST)
	@rm -rf model_store/models/$(DEFAULT)
	@mkdir -p model_store/models/$(DEFAULT)
	@cp -r $(DEFAULT_STORE)/$(DEFAULT)/3 model_store/models/$(DEFAULT)/

clean: ## Remove the virtual environment and what was built
	@rm -rf $(VENV) build
