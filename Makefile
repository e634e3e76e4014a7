# Every target makes what it needs: a .venv from the lock, and nothing outside this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "iggyflux needs Python 3.11 or newer (make PYTHON=python3.12 …)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

venv: $(VENV)/.ready  ## make .venv from the lock

demo: $(VENV)/.ready  ## see it work: a log, a mapping, a pipeline into a simulated InfluxDB
	@$(BIN)/python examples/demo.py

test: $(VENV)/.ready  ## run the tests but the slow ones (8 minutes)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(VENV)/.ready  ## run the slow tests: crashes, faults, laws, large inputs (5 minutes)
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

servers:  ## install what tests can use: InfluxDB 1.6, VictoriaMetrics, Chromium and Prometheus, where this is Debian and we are root
	@sh .ci/servers

SERVERS ?=
SERVER_TESTS := tests/test_alarms.py tests/servers tests/sim/test_against_real.py tests/test_cursor_topics.py tests/test_deploy.py \
	tests/test_both_ends_real.py tests/test_iggy_crash.py tests/test_iggy_real.py tests/test_many_hosts.py tests/test_reader_iggy.py

test-servers: $(VENV)/.ready  ## run the tests of real servers; fail where one that is named is not there
	$(BIN)/python -m pytest -n auto --dist worksteal --servers "$(SERVERS)" $(SERVER_TESTS)

LOWEST := $(VENV)/lowest
LOWEST_TESTS := tests/test_cli_ends.py tests/test_cli_progress.py tests/test_cli_transcripts.py tests/test_documents.py \
	tests/test_payloads.py tests/sim/test_command.py tests/transports/test_influxdb.py

test-lowest: $(VENV)/.ready  ## test the lowest versions that pyproject.toml accepts, where dependencies are used (2 minutes)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip compile --quiet --no-header --resolution lowest-direct $(EXTRAS) pyproject.toml -o $(LOWEST)/lowest.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST) -r $(LOWEST)/lowest.txt --group dev
	$(BIN)/uv pip install --quiet --python $(LOWEST) --no-build-isolation --no-deps -e .
	$(LOWEST)/bin/python -m pytest -n auto --dist worksteal $(LOWEST_TESTS)

RAY := $(VENV)/ray

test-ray: $(VENV)/.ready  ## run the tests of `load --engine ray`, with Ray in a venv of its own (480 MB; 3 minutes)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(RAY)
	$(BIN)/uv pip install --quiet --python $(RAY) -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(RAY) --no-build-isolation -e ".[ray]" -c requirements.lock
	IGGYFLUX_TEST_RAY=1 $(RAY)/bin/python -m pytest -n 0 tests/engines/test_ray.py

S3 := $(VENV)/s3

test-s3: $(VENV)/.ready  ## run the tests of `load s3://…` with a server of S3, in a venv of its own (150 MB; a minute)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(S3)
	$(BIN)/uv pip install --quiet --python $(S3) -e ".[s3]" "moto[server]" hypothesis pytest pytest-timeout
	IGGYFLUX_TEST_S3=1 $(S3)/bin/python -m pytest tests/engines/test_s3.py

FUZZ := $(VENV)/fuzz
FORMATS ?= json msgpack cbor protobuf csv text raw influx xml logfmt avro compression

fuzz: $(VENV)/.ready  ## feed payload formats with bytes found by coverage, by atheris in a venv of its own: FORMATS="avro …" MINUTES=10
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(FUZZ)
	$(BIN)/uv pip install --quiet --python $(FUZZ) -r requirements.lock atheris
	$(BIN)/uv pip install --quiet --python $(FUZZ) --no-build-isolation --no-deps -e .
	for each in $(FORMATS); do $(FUZZ)/bin/python -m tests.fuzz_payloads $$each -max_total_time=$$((60 * $(or $(MINUTES),10))) || exit; done

test-long: $(VENV)/.ready  ## run the tests with their full numbers (hours)
	$(BIN)/python -m pytest -n auto --dist worksteal --long --timeout 0

SIZE ?= usual
simulate: $(VENV)/.ready  ## run simulated worlds: SEED=7 with its timeline, MINUTES=10 of random seeds, SIZE=short|usual|hour
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --size $(SIZE) $(if $(SEED),--seed $(SEED) --shrink,--minutes $(or $(MINUTES),1))

MODULES ?=
mutants: $(VENV)/.ready  ## change one thing at a time in delivery and routes, list what no test notices: MODULES="delivery.held …", or all (hours); QUICK=1: only fast tests
	PYTHONHASHSEED=0 $(BIN)/python -m tests.mutants $(if $(QUICK),--quick) $(MODULES)

format: $(VENV)/.ready  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.ready  ## format, lint, types, layers, tests, docs: what a change must pass
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

docs: $(VENV)/.ready  ## build the site of the documentation into build/docs/site; a broken link fails
	$(BIN)/python docs/site.py build/docs
	$(BIN)/zensical build --strict --config-file build/docs/mkdocs.yml

dist: $(VENV)/.ready  ## build what is published into dist: the sdist, the wheel made of it, the bill of materials
	@sh deploy/build.sh dist $(BIN)

owner: $(VENV)/.ready  ## write the owner of the repository into every address: OWNER=name
	$(BIN)/python deploy/owner.py "$(OWNER)"

bench: $(VENV)/.ready  ## measure; ratios against something measured in the same run
	$(BIN)/python -m bench

PEERS := $(VENV)/peers

bench-peers: $(VENV)/.ready  ## measure rendering beside other tools: those of bench/peers.txt in a venv of their own, and those on PATH
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS) -r bench/peers.txt
	$(BIN)/python -m bench.peers $(PEERS)/bin/python

# Of all extras but s3, whose botocore holds python-dateutil below 3, and ray, which has 480 MB.
EXTRAS := --extra avro --extra compression --extra editor --extra fast --extra otel --extra parquet --extra playground --extra protobuf --extra protoc --extra sim --extra zstd
LOCK := $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet --python-version 3.11

lock: $(VENV)/.ready  ## make the lock files anew from pyproject.toml
	$(LOCK) pyproject.toml --group dev $(EXTRAS) -o requirements.lock
	$(LOCK) --constraint requirements.lock pyproject.toml --extra avro --extra compression --extra fast --extra protobuf -o requirements-runtime.lock
	$(LOCK) --constraint requirements.lock --group build -o requirements-build.lock
	$(LOCK) --group release -o requirements-release.lock

editor:  ## make the playground's CodeMirror bundle anew (needs Node; users do not)
	@sh codemirror/build.sh

bench-iggy: $(VENV)/.ready  ## measure against a real iggy-server (on PATH, or IGGYFLUX_TEST_IGGY)
	$(BIN)/python -m bench.iggy

.PHONY: help docs dist owner venv servers editor demo simulate mutants fuzz bench bench-iggy bench-peers lock test test-slow test-servers test-lowest test-ray test-s3 test-long format check
