# Each line sets up what it needs. PYTHON is any Python 3.11 or newer.
PYTHON ?= python3
RUN := .venv/bin
# One thread a process: several threads on tiny tensors wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
.PHONY: demo test check cases fuzz torture bench docs lock clean

demo: .venv/ready
	$(RUN)/robustseg demo --out demo
test: .venv/ready
	$(PYTEST)
check: .venv/ready
	$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy && $(PYTEST) -q
# Situations from public bug reports, each as a user meets it; three minutes.
cases: .venv/ready
	PYTHON=$(RUN)/python tests/cases/run.sh
# 100 runs of seven commands are killed at random system calls and repeated; half an hour, Linux with strace.
torture: .venv/ready
	OMP_NUM_THREADS=1 $(RUN)/python tests/torture.py 100
# Seven kinds of input, so many examples of each; the same seed gives the same inputs.
EXAMPLES ?= 1000
SEED ?= $(shell date +%s)
fuzz: .venv/ready
	ROBUSTSEG_FUZZ=$(EXAMPLES) $(PYTEST) tests/fuzz -q --hypothesis-seed=$(SEED)
bench: .venv/ready
	$(RUN)/python -m pip install --quiet --no-deps torchattacks && $(RUN)/python benchmarks/attack_speed.py
docs: .venv/ready
	$(RUN)/python docs/generate.py
lock:
	$(PYTHON) -m pip install --quiet uv && $(PYTHON) -m uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --all-extras --no-header --no-annotate --no-emit-index-url -o requirements.lock pyproject.toml

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'expected Python 3.11 or newer; try make PYTHON=python3.11')"
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(RUN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
clean:
	rm -rf .venv demo
