# Two commands: `make quickstart` trains an agent on this machine, `make test` proves the project.
PYTHON ?= python3
BIN := .venv/bin
# Processes that the tests are dealt out to, and that check types.
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart test check unit integration gpu format benchmarks clean

quickstart:
	@$(PYTHON) scripts/setup.py quickstart
	@$(BIN)/agentrl train recipes/quickstart.toml

test:
	@$(PYTHON) scripts/setup.py test
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -n $(WORKERS)

check:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy -n $(WORKERS)
	@$(BIN)/lint-imports --no-cache

unit integration:
	@$(PYTHON) scripts/setup.py test
	@$(BIN)/python -m pytest -n $(WORKERS) tests/$@

gpu:
	@$(PYTHON) scripts/setup.py test
	@$(BIN)/python -m pytest tests/gpu

format:
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

benchmarks:
	@$(PYTHON) scripts/setup.py test
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
