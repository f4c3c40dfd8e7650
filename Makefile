# The two commands that README shows are `make demo` and `make test`; each sets everything up.
PYTHON ?= python3
PYTEST_JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed.stamp
VIEWER_STAMP := $(VENV)/viewer.stamp
PYTHON312 ?= python3.12
READERS := .venv-readers
READERS_STAMP := $(READERS)/installed.stamp
SCREEN := $(shell command -v xvfb-run > /dev/null && echo xvfb-run -a env QT_QPA_PLATFORM=xcb)

.PHONY: demo test test-viewer test-readers viewer readers check docs clean

demo: $(STAMP)
	rm -rf demo
	$(BIN)/sureloc demo --out demo

test: check
	$(BIN)/pytest --numprocesses $(PYTEST_JOBS) --dist loadfile \
		--cov --cov-report term --cov-fail-under 95

# The napari plugin's tests; those of a whole window need a screen, which Xvfb can stand for.
test-viewer: $(VIEWER_STAMP)
	$(SCREEN) $(BIN)/pytest tests/test_viewer_layers.py tests/test_viewer_logic.py \
		tests/test_viewer_widgets.py --cov sureloc.viewer --cov-config /dev/null \
		--cov-report term --cov-fail-under 95

viewer: $(VIEWER_STAMP)

# Files that go to Picasso, SMAPpy, locan, ome-zarr and bioimageio.core and come from them. These need
# other libraries than sureloc, and Python 3.12, so they have an environment of their own.
test-readers: $(STAMP) $(READERS_STAMP)
	SURELOC_READERS=$(abspath $(READERS))/bin/python $(BIN)/pytest tests/test_readers.py \
		tests/test_frame_models.py -k "test_readers or bioimageio"

readers: $(READERS_STAMP)

# The documentation as a site, in ./site: index.html opens in a browser, without a network.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(READERS) demo site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

# Written last, so that an installation that broke off is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"sureloc needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

$(VIEWER_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[viewer-test]'
	touch $@

$(READERS_STAMP): scripts/readers.txt
	$(PYTHON312) -m venv $(READERS)
	$(READERS)/bin/python -m pip install --quiet --requirement scripts/readers.txt
	touch $@
