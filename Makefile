# The everyday commands; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO := digits.yaml
# The demo's runs lie in saved/<name of its config>/.
DEMO_RUNS = saved/$(shell sed -n 's/^name:[[:space:]]*\([A-Za-z0-9._-]*\).*/\1/p' configs/$(DEMO))
PYTEST := $(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

# template only
COVERAGE ?= 90
PYTEST += --cov-fail-under=$(COVERAGE)
# end

.DEFAULT_GOAL := help
.PHONY: help demo test test-all style clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.runtime ## train on handwritten digits, then test the best model
	$(BIN)/python train.py -c $(DEMO)
	$(BIN)/python test.py -r $(DEMO_RUNS)

test: $(VENV)/.dev ## run the quick tests and print their coverage
	$(PYTEST)

test-all: $(VENV)/.dev ## run every test, the slow ones too, and print their coverage
	$(PYTEST) -m ""

# template only
.PHONY: test-faults test-halves
# Half of the time of all tests goes into these.
LONG := $(wildcard tests/faults tests/test_new_project.py tests/trainer/test_signals.py)

test-faults: $(VENV)/.dev ## run the tests that kill, damage and starve runs
	$(BIN)/python -m pytest tests/faults -m faults

test-halves: $(VENV)/.dev ## run every test as test-all does, in two halves at once
	@COVERAGE_FILE=.coverage.long $(BIN)/python -m pytest --cov --cov-report= -m "" $(LONG) \
		>.pytest_long.log 2>&1 & long=$$!; trap "kill $$long" INT TERM; \
	COVERAGE_FILE=.coverage.rest $(BIN)/python -m pytest --cov --cov-report= -m "" \
		$(LONG:%=--ignore=%); rest=$$?; \
	wait $$long; long=$$?; cat .pytest_long.log; [ $$long = 0 ] && [ $$rest = 0 ]
	$(BIN)/python -m coverage combine --quiet .coverage.long .coverage.rest
	$(BIN)/python -m coverage report --show-missing --skip-covered --fail-under=$(COVERAGE)
# end

style: $(VENV)/.dev ## check style and formatting (ruff)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

clean: ## remove caches and coverage; the environment, data and runs stay
	rm -rf .pytest_cache .ruff_cache .coverage .coverage.* htmlcov build dist *.egg-info
	find . \( -path ./$(VENV) -o -path ./data -o -path ./saved \) -prune -o \
		-name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps `.runtime` and `.dev` are as new as the last successful installation.
$(VENV)/.runtime: requirements.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that." \
				"Name another: make PYTHON=python3.12 ..." >&2; exit 2; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "'$(PYTHON)' cannot make a virtual environment: its module venv or ensurepip" \
				"is missing. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 2; }; \
		$(PYTHON) -m venv $(VENV); }
	$(PIP) install -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PIP) install --quiet -r requirements-dev.txt
	@touch $@
