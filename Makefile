# make demo   everything set up, then the main job on real history
# make test   everything set up, then the whole suite
# make serve  the service on the demo's data
# make bench  ratios measured in one run
# make conformance  OPA's own cases through every evaluator

PYTHON ?= python3
UV := .make/uv/bin/uv
BIN := .venv/bin
STAMP := .venv/.setup
OPA_VERSION := v1.22.2
OPA := .make/bin/opa

.PHONY: setup demo serve test lint bench conformance docs tools clean

setup: $(STAMP)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .make/uv
	.make/uv/bin/python -m pip install -q --disable-pip-version-check 'uv>=0.8'

$(STAMP): pyproject.toml uv.lock | $(UV)
	$(UV) sync -q --frozen --compile-bytecode --python $(PYTHON)
	@touch $@

# the real OPA that tests compare with; without Go they skip and say so
tools: $(STAMP)
	@mkdir -p .make/bin
	@if [ -x $(OPA) ] && $(OPA) version | grep -q '$(OPA_VERSION:v%=%)'; then :; \
	elif command -v go >/dev/null; then echo "building opa $(OPA_VERSION)"; GOBIN="$(CURDIR)/.make/bin" go install github.com/open-policy-agent/opa@$(OPA_VERSION); \
	else echo "no Go here: tests against the real OPA will skip"; fi

demo: $(STAMP)
	$(BIN)/python -m enrich.cli.demo

serve: $(STAMP)
	$(BIN)/python -m enrich.cli.demo --serve

# bytecode once, for the many processes that tests start, where the environment keeps Python from writing it
test: tools lint
	$(BIN)/python -m compileall -q enrich
	PATH="$(CURDIR)/.make/bin:$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy enrich tests docs/simulations
	$(BIN)/lint-imports

bench: tools
	PATH="$(CURDIR)/.make/bin:$$PATH" $(BIN)/python -m tests.bench --write $(ONLY)

# OPA's own cases through every evaluator; minutes
conformance: tools
	PATH="$(CURDIR)/.make/bin:$$PATH" $(BIN)/python -m tests.conformance

docs: $(STAMP)
	$(BIN)/python -m enrich.settings > docs/reference/settings.md
	$(BIN)/python -m enrich.service.reference > docs/reference/http.md
	$(BIN)/python -m enrich.cli.reference > docs/reference/cli.md

clean:
	rm -rf .venv .make data
