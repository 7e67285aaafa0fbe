# `make demo` and `make test` need CPython 3.11 and make, nothing else installed.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := .venv/bin
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
# Quiet, and never a prompt: the set-up also runs where nobody watches.
export UV_NO_PROGRESS := 1
export PIP_NO_INPUT := 1

# What the environment is made of. The stamp carries its hash, so an environment made of anything else is made anew,
# and so is one that was moved to another folder.
PARTS := requirements.lock infra/bootstrap.lock infra/install_detectron2.py pyproject.toml
STAMP := .venv/.ready-$(shell { cat $(PARTS); pwd; } 2>/dev/null | cksum | cut -d' ' -f1)

# A worker for each core; a file stays with one worker, since its tests share servers and runs.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check bench faults ui lock setup clean
.DEFAULT_GOAL := demo

demo: setup  ## The whole chain on this machine's CPU, in minutes
	$(BIN)/pcd run demo

test: setup  ## The whole suite
	$(BIN)/python -m pytest $(PARALLEL)

check: setup  ## What should pass before every commit: formatter, linter, types, import arrows, the tests' fast part
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

bench: setup  ## What the fast paths gain over the plain ones, on this machine, in minutes
	$(BIN)/python -m pcd.bench $(BENCH)
	$(BIN)/python -m eval.bench_coco $(BENCH_COCO)

faults: setup  ## Faults at random points of real runs, some hours: FAULTS="--points 50 --seed 0"
	$(BIN)/python -m tests.faults.campaign $(FAULTS)

ui: setup  ## The MLflow and Prefect pages, on loopback
	$(BIN)/pcd ui

setup: $(STAMP)

# Bytecode is compiled here, once: hundreds of processes start from it, some where Python writes none by itself.
$(STAMP):
	@$(PYTHON) infra/check_python.py
	@rm -f .venv/.ready-*
	@echo "installing the locked packages into .venv (torch with its CUDA libraries: about 6 GB)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/bootstrap.lock
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/python infra/install_detectron2.py --force
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline -e .
	@touch $@

lock:  ## Regenerate the lock files from pyproject.toml
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --disable-pip-version-check uv
	.venv-lock/bin/uv pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --quiet --upgrade --output-file requirements.lock
	echo uv | .venv-lock/bin/uv pip compile - --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --quiet --upgrade --output-file infra/bootstrap.lock
	rm -rf .venv-lock

clean:  ## Remove the environment; results in runs/ stay
	rm -rf .venv .venv-lock
