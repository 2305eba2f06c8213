"""Hostile DICOM files at every door of a real service: refused in words, and quoted nowhere."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE

from tests.hostile_dicom import MARKER, benign, cut, refused
from tests.ports import free_port
from tests.service_process import service_process

DICOM = {"Content-Type": "application/dicom"}
REFUSED = refused()
CUT = cut()
BENIGN = benign()


@dataclass
class Served:
    """A service with a DICOM queue, a Storage SCP, and an archive that is never there."""

    process: "subprocess.Popen[bytes]"
    address: str
    listener_port: int
    folder: Path

    def post(self, path: str, data: bytes) -> httpx2.Response:
        response = httpx2.post(f"{self.address}{path}", content=data, headers=DICOM, timeout=120)
        assert self.process.poll() is None, "the service died"
        assert response.status_code < 500, response.text
        assert not holds_marker(response.content), response.text
        if response.status_code >= 400:
            assert response.json()["detail"]
        return response

    def end_of(self, job_id: str) -> str:
        """The state that a job ends in."""
        while True:
            job = httpx2.get(f"{self.address}/dicom/jobs/{job_id}", timeout=60).json()
            if job["state"] in {"stored", "refused", "dead"}:
                return str(job["state"])
            assert self.process.poll() is None, "the service died"
            time.sleep(0.05)

    def check_nothing_was_quoted(self) -> None:
        places = [path for path in self.folder.rglob("*") if path.is_file()]
        places = [path for path in places if path.parent.name != "queue"]
        metrics = httpx2.get(f"{self.address}/metrics", timeout=60).content
        for content in (metrics, *(path.read_bytes() for path in places)):
            assert not holds_marker(content)
        log = (self.folder / "log.jsonl").read_bytes()
        assert b"internal-error" not in log
        assert not re.search(rb"internal-error.* [1-9]", metrics)
        assert b"unexpected" not in log, log[-2000:]

    def peak_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) / 1024


def holds_marker(data: bytes) -> bool:
    """Whether the name is there, in any encoding that a format may have put it in."""
    lower = data.lower()
    return any(MARKER.lower().encode(e) in lower for e in ("utf-8", "utf-16-le", "utf-16-be"))


@pytest.fixture(scope="module")
def served(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hostile")
    listener_port, log = free_port(), folder / "log.jsonl"
    settings = {
        "MODELS_DIR": str(tiny_models),
        "RUNTIME": "openvino",
        "AUDIT_DIR": str(folder / "audit"),
        "LOG_LEVEL": "DEBUG",
        "MAX_IMAGE_PIXELS": "1000000",
        "DICOM_QUEUE_DIR": str(folder / "queue"),
        "DICOM_STORE_PEER": "NOBODY@127.0.0.1:1",
        "DICOM_MAX_ATTEMPTS": "1",
        "DICOM_MAX_WAITING": "10000",
        "DICOM_LISTEN_PORT": str(listener_port),
    }
    with service_process(log, settings, 120) as (process, address):
        yield Served(process, address, listener_port, folder)


def test_every_file_has_the_name_in_it() -> None:
    for name, data in BENIGN.items():
        assert holds_marker(data) or name == "deflated", name


@pytest.mark.parametrize("name", [*REFUSED, *CUT, *BENIGN])
def test_a_hostile_file_is_refused_in_words_and_quoted_nowhere(served: Served, name: str) -> None:
    make: Callable[[], bytes] = REFUSED.get(name) or (lambda: {**CUT, **BENIGN}[name])
    data = make()
    answered = served.post("/predict", data)
    taken = served.post("/dicom/studies", data)
    states = [served.end_of(job["id"]) for job in taken.json().get("jobs", [])]
    if name in BENIGN:
        assert (answered.status_code, taken.status_code, states) == (200, 202, ["dead"])
    else:
        # The queue looks at no pixels: what has wrong ones is taken, and refused by the worker.
        assert 400 <= answered.status_code < 500
        assert taken.status_code in {202, 413, 415, 422}
        assert states in ([], ["refused"])
    served.check_nothing_was_quoted()


def send(served: Served, path: Path) -> int | None:
    """C-STORE a file's bytes as they are; the status, None where there was none."""
    meta = read_file_meta_info(path)
    entity = AE(ae_title=MARKER)
    entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", served.listener_port, ae_title="DERMHYBRID")
    if not association.is_established or not association.accepted_contexts:
        return None
    try:
        status = association.send_c_store(path).get("Status")
        return None if status is None else int(status)
    finally:
        association.release()


def test_the_same_files_at_the_storage_scp(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As they are: otherwise this side would read them first.
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)
    statuses: dict[str, int | None] = {}
    for name in (*REFUSED, *CUT):
        data = CUT[name] if name in CUT else REFUSED[name]()
        if len(data) > 600:
            path = tmp_path / f"{name}.dcm"
            path.write_bytes(data)
            try:
                statuses[name] = send(served, path)
            except (AttributeError, ValueError):  # no such UID can be offered
                continue
            assert served.process.poll() is None, name
    assert set(statuses.values()) == {None, 0x0000, 0xC000}
    assert len([status for status in statuses.values() if status is not None]) > 50
    good = tmp_path / "good.dcm"
    good.write_bytes(BENIGN["jpeg"])
    assert send(served, good) == 0
    served.check_nothing_was_quoted()
    log = (served.folder / "log.jsonl").read_bytes()
    assert log.count(b"association ended") < 20


def test_no_bomb_has_filled_the_memory(served: Served) -> None:
    # 200 MB and more each, had they been unfolded.
    before = served.peak_megabytes()
    for name in ("deflated-bomb", "jpeg-bomb", "jpeg-bomb-declared", "runs-bomb"):
        served.post("/predict", REFUSED[name]())
        served.post("/dicom/studies", REFUSED[name]())
    assert served.peak_megabytes() - before < 100


def test_the_service_still_answers(served: Served) -> None:
    assert served.post("/predict", BENIGN["names"]).json()["decision"]
