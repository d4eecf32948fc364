# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
DEMO := $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED)) $(if $(DEVICE),--device $(DEVICE))
WORKERS ?= 2

.PHONY: demo view test test-slow test-gpu bench lint types clean

demo: .venv/ready  ## the main job on real images; QUICK=1 is shorter
	$(BIN)/explain demo $(DEMO)

view: .venv/ready  ## the viewer on the demo's run
	$(BIN)/explain view runs/demo

test: .venv/ready  ## every test but the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow and not gpu"

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

test-gpu: .venv/ready  ## on a machine with a CUDA device
	$(BIN)/python -m pytest -m gpu

bench: .venv/ready  ## beside captum, pytorch-grad-cam, a plain rollout, an ordinary VPT; three hours on two cores
	$(BIN)/python benchmarks/attribution.py --into docs/benchmarks.md
	$(BIN)/python benchmarks/training.py --into docs/benchmarks_training.md
	$(BIN)/python benchmarks/evidence.py --into docs/benchmarks_evidence.md
	$(BIN)/python benchmarks/batch.py --out batch.json
	$(BIN)/python benchmarks/archive.py --batch batch.json --into docs/benchmarks_archive.md
	$(BIN)/python benchmarks/prompt_design.py --out prompt_design.json --into docs/prompt_design.md

lint: .venv/ready
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/mypy

# the stamp is written last, so an interrupted installation starts over
.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 demo")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info
