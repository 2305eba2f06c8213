"""A real Orthanc with the configuration of deploy/orthanc, on loopback ports of its own."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.programs import require_program

CONFIGURATION = REPOSITORY / "deploy" / "orthanc"


@dataclass(frozen=True)
class Orthanc:
    """A running one."""

    url: str
    dicom_port: int

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def find(self, study_uid: str, level: str = "series", **query: str) -> list[dict[str, Any]]:
        """QIDO-RS below a study."""
        answer = httpx2.get(
            f"{self.dicomweb}/studies/{study_uid}/{level}", params=query, timeout=30
        )
        found: list[dict[str, Any]] = answer.json() if answer.status_code == 200 else []
        return found

    def store(self, *files: Path) -> None:
        """C-STORE, with dcmtk.

        Raises:
            subprocess.CalledProcessError: It did not take one.
        """
        command = [require_program("storescu"), "-R", "-aec", "ORTHANC", "127.0.0.1"]
        for file in files:
            subprocess.run([*command, str(self.dicom_port), file], check=True)

    def count(self) -> dict[str, int]:
        """Instances by modality."""
        counts: dict[str, int] = {}
        url = f"{self.url}/tools/find"
        query = {"Level": "Series", "Query": {}, "Expand": True}
        for series in httpx2.post(url, json=query, timeout=30).json():
            modality = series["MainDicomTags"]["Modality"]
            counts[modality] = counts.get(modality, 0) + len(series["Instances"])
        return counts

    def download(self, study_uid: str, modality: str) -> list[bytes]:
        """The files of a modality's instances in a study."""
        query = {
            "Level": "Instance",
            "Query": {"StudyInstanceUID": study_uid, "Modality": modality},
        }
        found = httpx2.post(f"{self.url}/tools/find", json=query, timeout=30).json()
        return [
            httpx2.get(f"{self.url}/instances/{name}/file", timeout=30).content for name in found
        ]


@contextmanager
def run_orthanc(
    folder: Path,
    *,
    listener_port: int = 1,
    service_url: str | None = None,
    users: dict[str, str] | None = None,
    name: str = "orthanc.json",
) -> Iterator[Orthanc]:
    """Start one.

    Args:
        folder: For its database.
        listener_port: Of the service's Storage SCP, known there as `dermhybrid`.
        service_url: Where its hook sends photographs; None for no hook.
        users: Who may ask it, and their passwords; None for anybody.
        name: Of its configuration in deploy/orthanc.
    """
    program = require_program("Orthanc")
    http_port, dicom_port = free_port(), free_port()
    settings = json.loads((CONFIGURATION / name).read_text(encoding="utf-8"))
    settings |= {
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "TemporaryDirectory": str(folder),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "LuaScripts": [str(CONFIGURATION / "dermhybrid.lua")] if service_url else [],
    }
    if users:
        settings |= {"AuthenticationEnabled": True, "RegisteredUsers": users}
    settings["DicomModalities"]["dermhybrid"][1:] = ["127.0.0.1", listener_port]
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    environment = {**os.environ, "DERMHYBRID_URL": service_url or ""}
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen(
            [program, str(configuration)], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            orthanc = Orthanc(f"http://127.0.0.1:{http_port}", dicom_port)
            _wait(orthanc, process, folder / "orthanc.log")
            yield orthanc
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(orthanc: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        assert process.poll() is None, log.read_text()
        try:
            httpx2.get(f"{orthanc.url}/system", timeout=5)  # whatever it answers
        except httpx2.HTTPError:
            time.sleep(0.1)
        else:
            return
