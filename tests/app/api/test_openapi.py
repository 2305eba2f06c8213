"""The service answers whatever its OpenAPI document allows, and more, as the document says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.access.keys import create_key
from app.access.scopes import Scope
from app.main import create_app
from app.settings import Settings
from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.service_process import openvino_service

MAX_EXAMPLES = os.environ.get("OPENAPI_EXAMPLES", "20")
"""Of each operation and each phase; `OPENAPI_EXAMPLES=500` for a long run."""

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)


def test_every_answer_is_as_documented(ruled_models: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    key = create_key(keys, "tester", list(Scope), None)
    settings = {
        "API_KEYS_FILE": str(keys),
        "AUDIT_DIR": str(tmp_path / "audit"),
        "CDS_HOOKS": "true",
        "DICOM_QUEUE_DIR": str(tmp_path / "queue"),
        "DICOM_STORE_URL": f"http://127.0.0.1:{free_port()}/dicom-web",  # nobody listens there
        "OUT_OF_DISTRIBUTION_GATE": "advise",
    }
    with openvino_service(ruled_models, tmp_path / "log", **settings) as (_, address):
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", MAX_EXAMPLES),
            "--generation-deterministic",
            *("--suppress-health-check", "all"),
            *("--request-timeout", "60"),
            *("--no-color", "--continue-on-failure"),
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,  # it leaves a folder behind
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "SCHEMATHESIS_HOOKS": "tests.app.api.openapi_hooks",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    # What tests nothing is no success.
    counted = re.search(r"API Operations:\n\s+Selected: (\d+)/(\d+)\n\s+Tested: (\d+)", report)
    assert counted, report
    assert counted[1] == counted[2] == counted[3], report


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_schema_that_is_named_is_there(tmp_path: Path) -> None:
    settings = Settings(audit_dir=tmp_path, cds_hooks=True)
    for _ in range(2):  # what one application mends must not be missing from the next one's
        document = create_app(settings).openapi()
        named = set(references(document))
        assert named >= {"#/components/schemas/HookContext", "#/components/schemas/Problem"}
        for reference in named:
            assert (
                reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
            )


def test_failures_are_written_in_what_was_asked_for(tmp_path: Path) -> None:
    paths = create_app(Settings(audit_dir=tmp_path)).openapi()["paths"]
    problem, outcome = "application/problem+json", "application/fhir+json"
    for path, kinds in (
        ("/predict", {problem, outcome}),
        ("/predict/batch", {problem}),
        ("/fhir/$classify-lesion", {outcome}),
        ("/feedback/{request_id}", {problem}),
    ):
        responses = paths[path]["post"]["responses"]
        assert {"401", "403", "422", "429", "503", "504"} <= set(responses)
        for status, response in responses.items():
            assert int(status) < 400 or set(response["content"]) == kinds
    assert set(paths["/models"]["get"]["responses"]) >= {"200", "422", "504"}
