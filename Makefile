# Each target works alone from a clean clone: it makes .venv and installs what it needs, once.
.PHONY: demo test lint unit validate bench clean
BIN := .venv/bin
PYTEST_ARGS ?=

demo:
	@tools/setup.sh run
	$(BIN)/spineimg demo

test: lint unit

lint:
	@tools/setup.sh test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/lint-imports --no-cache

unit:
	@tools/setup.sh test
	$(BIN)/python -m pytest -n 2 -m "not slow" $(PYTEST_ARGS)

# Writes docs/validation.md: accuracy on phantoms and real scans, peers measured in the same run.
validate:
	@tools/setup.sh bench
	$(BIN)/python -m pytest -n 2 -m slow $(PYTEST_ARGS)
	$(BIN)/python -m benchmarks.validate

# Prints speed and memory as ratios to the peers, measured in the same run.
bench:
	@tools/setup.sh bench
	$(BIN)/python -m benchmarks.speed

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis spineimg-demo
