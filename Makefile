# Each command sets up what it needs: a virtual environment in .venv, and the package with its tools in it.
PYTHON ?= python3
BIN = .venv/bin
JOBS ?= 2
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test lab bench

demo: .venv/.ready
	$(BIN)/minidiff sample "a thick red three" "two white zeros" "a green five on a navy background" "a small yellow one and a large magenta eight" --n 2 -o out.png

test: .venv/.ready
	$(BIN)/python -m pytest tests -q -n $(JOBS) --dist worksteal

lab: .venv/.ready
	$(BIN)/jupyter lab --allow-root nbs/00_tour.ipynb

bench: .bench-venv/.ready
	.bench-venv/bin/python -m bench $(PARTS)

.venv/.ready: settings.ini setup.py pyproject.toml Makefile
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'minidiff needs Python 3.10 or later: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps k-diffusion torchdiffeq torchsde trampoline  # k-diffusion's own list would bring numpy 1 and 30 packages more
	touch $@

.bench-venv/.ready: settings.ini setup.py pyproject.toml bench/requirements.txt
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/pip install --quiet --upgrade pip
	.bench-venv/bin/pip install --quiet -e . -r bench/requirements.txt
	touch $@
