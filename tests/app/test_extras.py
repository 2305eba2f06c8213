"""What `make serve` installs is enough: no extra but `openvino` is needed unless it is used."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx2

from tests.conftest import PLAIN_MODEL, REPOSITORY
from tests.dicom_photographs import make_dataset, to_bytes
from tests.service_process import openvino_service

NOT_INSTALLED = ("interop", "otel", "ray", "training")
_BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def packages_of(extras: tuple[str, ...]) -> set[str]:
    """What the extras bring along by name, and the service alone does not."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", line)[0].lower() for line in requirements}

    wanted = set[str]().union(*(names(optional[extra]) for extra in extras))
    kept = names(project["dependencies"]) | names(optional["openvino"])
    found = set()
    for package, distributions in packages_distributions().items():
        of = {re.sub(r"[-_.]+", "-", name).lower() for name in distributions}
        if of & wanted and not of & kept:  # some share a namespace
            found.add(package)
    assert {"pydicom", "highdicom", "pynetdicom", "httpx2", "ray", "pandas"} <= found
    return found


def test_the_service_starts_and_answers_without_any_other_extra(
    tiny_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_BLOCK.format(packages=packages_of(NOT_INSTALLED)))
    with openvino_service(
        tiny_models, tmp_path / "log", PYTHONPATH=str(tmp_path), DEFAULT_MODEL=PLAIN_MODEL
    ) as (_, address):
        answered = httpx2.post(f"{address}/predict", files={"image": lesion_png}, timeout=60)
        dicom = httpx2.post(
            f"{address}/predict",
            content=to_bytes(make_dataset()),
            headers={"Content-Type": "application/dicom"},
            timeout=60,
        )
        metrics = httpx2.get(f"{address}/metrics", timeout=60)
    assert answered.status_code == 200
    assert answered.json()["model"]["name"] == PLAIN_MODEL
    assert dicom.status_code == 415
    assert dicom.json()["type"] == "urn:dermhybrid:problem:dicom-support-missing"
    assert "--extra interop" in dicom.json()["detail"]
    assert metrics.status_code == 200
