# Each line sets up what it needs. PYTHON is any Python 3.11 or newer.
PYTHON ?= python3
RUN := .venv/bin
.PHONY: demo test check bench docs lock clean

demo: .venv/ready
	$(RUN)/robustseg demo --out demo
test: .venv/ready
	$(RUN)/python -m pytest
check: .venv/ready
	$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy && $(RUN)/python -m pytest -q
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
