# Each target works alone from a clean clone: it makes .venv and installs what it needs, once.
.PHONY: demo napari test lint unit plugin validate bench screenshots clean
BIN := .venv/bin
PYTEST_ARGS ?=

demo:
	@tools/setup.sh run
	$(BIN)/spineimg demo

# Starts napari with the plugin; CT folders are opened by dragging them onto its window.
napari:
	@tools/setup.sh napari
	$(BIN)/napari --with napari-spineimg

test: lint unit plugin

lint:
	@tools/setup.sh test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/lint-imports --no-cache

unit:
	@tools/setup.sh test
	$(BIN)/python -m pytest -n 2 -m "not slow" $(PYTEST_ARGS)

# The plugin's tests need a window: a virtual screen, where xvfb-run is there; one more for each of the two processes.
PLUGIN_TESTS := LIBGL_ALWAYS_SOFTWARE=1 xvfb-run -a -s "-screen 0 1366x768x24" \
  $(BIN)/python -m pytest -n 2 -m "not slow" plugins/napari_spineimg/tests
plugin:
	@tools/setup.sh test
	@if command -v xvfb-run >/dev/null 2>&1; then \
	  $(PLUGIN_TESTS); \
	else echo "plugin: xvfb-run is missing (package xvfb), the plugin's tests are left out" >&2; fi

# Pictures of the plugin for README and docs.
screenshots:
	@tools/setup.sh test
	LIBGL_ALWAYS_SOFTWARE=1 xvfb-run -a -s "-screen 0 1366x768x24" $(BIN)/python tools/screenshots.py

# Writes docs/validation.md: accuracy on phantoms and real scans, peers measured in the same run.
validate:
	@tools/setup.sh bench
	$(BIN)/python -m pytest -n 2 -m slow $(PYTEST_ARGS)
	$(BIN)/python -m benchmarks.validate

# Prints speed and memory as ratios to the peers, measured in the same run.
bench:
	@tools/setup.sh bench
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.batch
	@if command -v xvfb-run >/dev/null 2>&1; then \
	  LIBGL_ALWAYS_SOFTWARE=1 xvfb-run -a -s "-screen 0 1366x768x24" $(BIN)/python -m benchmarks.plugin; \
	else echo "bench: xvfb-run is missing (package xvfb), the plugin is not timed" >&2; fi

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis spineimg-demo
