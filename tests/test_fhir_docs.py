"""The commands of docs/integrations/fhir.md do what the page says."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import REPOSITORY
from tests.fhir_checks import assert_valid, resources
from tests.fhir_peers import running
from tests.programs import require_program
from tests.service_process import service_process

PAGE = (REPOSITORY / "docs" / "integrations" / "fhir.md").read_text(encoding="utf-8")
ASK, STORE, KEYS, HOOK = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def fhir_server() -> Iterator[str]:
    with running("fhir_server.mjs") as address:
        yield address


@pytest.fixture(scope="module")
def service(
    tiny_models: Path, fhir_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("service") / "log.jsonl"
    settings = {
        "MODELS_DIR": str(tiny_models),
        "RUNTIME": "openvino",
        "FHIR_SERVER_URL": fhir_server,
        "CDS_HOOKS": "true",
    }
    with service_process(log, settings, 30) as (_, address):
        yield address.removeprefix("http://")


@pytest.fixture
def image(tmp_path: Path, lesion_png: bytes) -> Path:
    path = tmp_path / "lesion.png"
    path.write_bytes(lesion_png)
    return path


def run(command: str, folder: Path, **words: str) -> str:
    for word, value in words.items():
        command = command.replace(word, value)
    command = command.replace("curl ", "curl --silent --show-error --fail ")
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ask_and_store_by_hand(service: str, fhir_server: str, image: Path) -> None:
    require_program("curl")
    words = {"IMAGE": str(image), "localhost:8000": service, "FHIR_SERVER": fhir_server}
    stored = json.loads(run(ASK, image.parent, **words))
    assert stored["type"] == "transaction-response"
    assert_valid(json.loads((image.parent / "answer.json").read_text()))


def test_let_the_service_store_and_see_the_card(
    service: str, fhir_server: str, image: Path
) -> None:
    require_program("curl")
    words = {"IMAGE": str(image), "localhost:8000": service}
    bundle = json.loads(run(STORE, image.parent, **words))
    query = {"subject": "Patient/123"}
    found = httpx2.get(f"{fhir_server}/DiagnosticReport", params=query).json()
    conclusions = {report["conclusion"] for report in resources(found, "DiagnosticReport")}
    assert resources(bundle, "DiagnosticReport")[0]["conclusion"] in conclusions
    (card,) = json.loads(run(HOOK, image.parent, **words))["cards"]
    assert "specialist" in card["summary"]


def test_the_python_example(service: str, image: Path) -> None:
    script = SCRIPT.replace("IMAGE", str(image)).replace("localhost:8000", service)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Not a medical device" in done.stdout


def test_the_key_is_one_that_the_service_takes(tmp_path: Path) -> None:
    require_program("openssl")
    from app.interop.smart_backend import read_signing_key

    run(KEYS, tmp_path)
    assert read_signing_key(tmp_path / "fhir.pem")[1] == "ES384"
    assert (tmp_path / "fhir-public.pem").read_text().startswith("-----BEGIN PUBLIC KEY")


def test_every_code_system_is_on_the_page() -> None:
    code = (REPOSITORY / "app" / "interop" / "fhir_codes.py").read_text(encoding="utf-8")
    for system in set(re.findall(r'"(urn:dermhybrid:[a-z0-9-]+)"', code)):
        assert f"`{system}`" in PAGE
