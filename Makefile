# `make` lists what there is. Everything runs in .venv, which the first call makes.
PYTHON ?= python3
GPU ?= $(wildcard .venv/gpu)  # an environment made with GPU=1 stays one, until .venv is removed
LOCK := requirements$(if $(strip $(GPU)),-gpu).lock
UV := uv==0.13.9
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-header --quiet
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export TF_CPP_MIN_LOG_LEVEL := 3
export LC_ALL := C.UTF-8
ifneq ($(strip $(GPU)),)  # of TensorFlow the locks have the build for processors alone
export KERAS_BACKEND ?= jax
endif
ON_BOTH := tests/model tests/train tests/predict/test_inference.py
FILE ?= submissions/submission.csv
export FILE ANSWERS FIRST SECOND MESSAGE IMAGE NAME FORMAT  # recipes quote them as shell variables, whatever they hold

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: .venv/done ## the whole pipeline, from data to submission file; what is up to date is not repeated; GPU=1 on a GPU
	@find dvc.lock .dvc/tmp/rwlock .dvc/cache/runs -empty -delete 2>/dev/null || true  # a kill of DVC left them, it trips over them
	@dvc repro
	@$(BIN)/python -m fashionseg summary
	@test -n "$(strip $(GPU))" || ! command -v nvidia-smi >/dev/null || echo "there is a GPU here: make repro GPU=1 uses it"

test: .venv/done ## all that CI runs: lint, then the tests on TensorFlow and beside them the model's on JAX
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-whole test-jax test-model test-packages

test-whole: .venv/done
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest tests/test_*.py

test-jax: .venv/done  # nice: XLA compiles with all cores, and the tests beside it would wait
	KERAS_BACKEND=jax nice $(BIN)/python -m pytest $(ON_BOTH)

test-model: .venv/done
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest $(ON_BOTH)

test-packages: .venv/done
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest tests $(ON_BOTH:%=--ignore=%) --ignore-glob='tests/test_*.py'

# Held to SSE4.1 oneDNN ends the process at 16 bits, which TensorFlow only gives it on processors that know them.
trials: .venv/done ## the tests that train, ten times each, as on other processors: values beside their bounds
	@for setting in TF_ENABLE_ONEDNN_OPTS=1 TF_ENABLE_ONEDNN_OPTS=0 TF_NUM_INTRAOP_THREADS=1 \
	  'ONEDNN_MAX_CPU_ISA=SSE41 PYTEST_ADDOPTS=-knot(16_bit)' \
	  KERAS_BACKEND=jax 'KERAS_BACKEND=jax XLA_FLAGS=--xla_cpu_max_isa=AVX2'; do echo "== $$setting"; \
	  env KERAS_BACKEND=tensorflow $$setting $(BIN)/python -m pytest tests/model tests/train/test_hosts.py --trials 10 --durations=0 || exit 1; done

lint: .venv/done ## style and form
	@$(BIN)/ruff check && $(BIN)/ruff format --check

bench: .venv/done ## single operations, each against another implementation in one run: a ratio
	@for name in attributes batches paste rle roi_align submission tuning; do echo "== $$name"; \
	  $(BIN)/python benchmarks/$$name.py || exit 1; done

preset: .venv/done ## other values into params.yaml: make preset NAME=competition_r50; presets/ has them
	@$(BIN)/python -m fashionseg preset "$$NAME"

compare: .venv/done ## the workspace and the last commit's experiments on one page: make compare RUNS='fold-1 HEAD~2'
	@$(BIN)/python -m fashionseg compare $(RUNS)

check: .venv/done ## every fault of a submission: make check FILE=other.csv.gz; with ANSWERS=data/coco/val.json its score
	@$(BIN)/python -m fashionseg check "$$FILE" \
	  $(if $(ANSWERS),"$$ANSWERS",data/coco/test.json data/coco/sample_submission.csv)

compare-submissions: .venv/done ## instances that differ between two submissions, by class: make compare-submissions FIRST=a.csv SECOND=b.csv
	@$(BIN)/python -m fashionseg compare-submissions "$$FIRST" "$$SECOND" data/coco/test.json

submit: .venv/done ## the submission to Kaggle, once it is found faultless: make submit MESSAGE='forest, 12 epochs'
	@$(BIN)/python -m fashionseg send submissions/submission.csv data/coco/test.json data/coco/sample_submission.csv \
	  "$$MESSAGE"

inspect: .venv/done ## a network at work on one picture, step by step: make inspect IMAGE=photo.jpg
	@$(BIN)/python -m fashionseg inspect models "$$IMAGE" results/inspection

augment: .venv/done ## 16 training pictures as the network sees them, in one image
	@dvc repro preview
	@$(BIN)/python -m fashionseg sheet results/preview results/augment.jpg

serve: .venv/done ## a page on which photographs are dropped, at http://127.0.0.1:8000
	@$(BIN)/python -m fashionseg serve models

export: .venv/done ## the trained network as a TensorFlow SavedModel; FORMAT=onnx as ONNX
	@$(BIN)/python -m fashionseg export models $(if $(FORMAT),"results/mask_rcnn.$$FORMAT",results/saved_model)

notebooks: .venv/done ## the notebooks from their scripts in notebooks/
	@$(BIN)/jupytext --quiet --update --to ipynb --update-metadata '{"jupytext": null}' notebooks/*.py

wheels: ## all packages and the code in wheels/, for a machine without internet with this Python: docs/kaggle.md
	@rm -rf wheels
	@$(PYTHON) -m pip download -q --disable-pip-version-check --no-deps --require-hashes -r $(LOCK) -d wheels
	@$(PYTHON) -m pip download -q --disable-pip-version-check --no-deps '$(UV)' -d wheels
	@git diff --quiet HEAD || echo "uncommitted changes are not in wheels/: commit them and run this again"
	@git bundle create -q wheels/fashionseg.bundle HEAD
	@du -sh wheels

lock: ## requirements.lock and requirements-gpu.lock anew, from pyproject.toml
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q '$(UV)'
	$(COMPILE) --extra tensorflow --extra jax --extra dev --output-file requirements.lock
	$(COMPILE) --extra jax-gpu --output-file requirements-gpu.lock

.venv/gpu:
	@mkdir -p .venv && touch $@

.venv/done: $(LOCK) pyproject.toml $(if $(strip $(GPU)),.venv/gpu)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: Python 3.11 to 3.13 is needed; name one with make PYTHON=python3.12")'
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check '$(UV)'
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes --no-deps -r $(LOCK)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: help preset repro test test-whole test-jax test-model test-packages trials lint bench compare check compare-submissions submit inspect augment \
  serve export notebooks wheels lock
