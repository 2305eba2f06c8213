# Needs Python 3.11, make and the Python package index; uv is installed beside the project.
PYTHON ?= python3.11
UV_VERSION := 0.13.9
UV := .tools/bin/uv
RUN := $(UV) run --frozen --no-sync

HOST ?= 127.0.0.1
PORT ?= 8000
RUNTIME ?= openvino

.PHONY: serve test test-image test-ray check sbom bench soak faults format sync-serve sync-dev
.DEFAULT_GOAL := help

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

serve: sync-serve ## Install what is locked and serve the committed models on HOST:PORT
	RUNTIME=$(RUNTIME) $(RUN) dermhybrid serve --host $(HOST) --port $(PORT)

test: sync-dev ## Install what is locked and run every test
	$(RUN) pytest --cov --cov-report=term -n logical --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder $(PYTEST_ARGS)

test-image: sync-dev ## Build the container images and run them as compose does (root; buildah, podman, runc)
	IMAGE_TEST=1 $(RUN) pytest tests/deploy/test_image.py --log-cli-level=INFO $(PYTEST_ARGS)

test-ray: sync-dev ## Two replicas on a Ray of their own beside one process (idle machine)
	RAY_TEST=1 $(RUN) pytest tests/deploy/test_ray.py $(PYTEST_ARGS)

check: sync-dev ## Lint, types, import directions, container files
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) mypy docs/integrations/clients/dermhybrid_client.py
	$(RUN) lint-imports
	$(RUN) hadolint Dockerfile deploy/orthanc/Dockerfile
	$(RUN) compose-lint docker-compose.yml

sbom: $(UV) ## Write what the image installs as CycloneDX: dist/sbom.cdx.json
	$(UV) export --preview-features sbom-export --format cyclonedx1.5 --frozen --quiet \
		--no-default-groups --group image --extra openvino --extra interop --extra otel \
		--no-emit-package tensorflow \
		--output-file dist/sbom.cdx.json

bench: sync-dev ## Measure the service beside its peers: docs/bench.md (half an hour, idle machine)
	$(RUN) python -m tests.bench

soak: sync-dev ## An hour at 70 % of the capacity: docs/soak.md, docs/capacity.md (idle machine)
	$(RUN) python -m tests.bench.soak
	$(RUN) python -m tests.bench.capacity

faults: sync-dev ## Inject faults into the service and count what is lost: docs/faults.md
	$(RUN) python -m tests.faults

format: sync-dev ## Format the code and mend what ruff can
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

sync-serve: $(UV)
	$(UV) sync --frozen --inexact --no-dev --extra openvino

sync-dev: $(UV)
	$(UV) sync --frozen --inexact --extra training --extra openvino --extra interop --extra otel \
		--extra ray

$(UV):
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet uv==$(UV_VERSION)
