"""The DICOM worker against a real Orthanc: photographs get their results, once, by themselves."""

import io
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
    generate_uid,
)
from pynetdicom import AE

from app.domain.errors import DicomSupportMissingError
from app.main import create_app
from app.settings import Settings
from tests.conftest import REPOSITORY
from tests.dicom_photographs import jpeg_photograph, lesion, make_dataset, to_bytes
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.programs import require_program

DICOM = {"Content-Type": "application/dicom"}


@dataclass
class Service:
    """The service as a process that can be killed and started again."""

    settings: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from app.cli import main; main()"),
                    *("serve", "--port", str(self.port)),
                ],
                env={**os.environ, **self.settings},
                cwd=REPOSITORY,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                return httpx2.get(f"{self.url}/health/ready", timeout=5).status_code == 200
            except httpx2.HTTPError:
                return False

        until(is_ready)

    def kill(self, sent: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(sent)
        self.process.wait(timeout=60)


def until(condition: Callable[[], Any], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


@contextmanager
def service(tiny_models: Path, folder: Path, **settings: str) -> Iterator[Service]:
    own = {
        "MODELS_DIR": str(tiny_models),
        "RUNTIME": "openvino",
        "AUDIT_DIR": str(folder / "audit"),
        "LOG_LEVEL": "DEBUG",
        "DICOM_QUEUE_DIR": str(folder / "queue"),
        "DICOM_RETRY_SECONDS": "0.2",
        "DRAIN_SECONDS": "0",
        "MAX_IMAGE_BYTES": "2000000",
    }
    running = Service({**own, **settings}, folder / "log.jsonl")
    try:
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.kill(signal.SIGTERM)


@dataclass
class Ward:
    """A service and an archive that know one another."""

    service: Service
    orthanc: Orthanc
    listener_port: int

    def store(self, *datasets: Dataset) -> None:
        """C-STORE into the archive, with dcmtk."""
        for dataset in datasets:
            path = self.service.log.parent / f"{dataset.SOPInstanceUID}.dcm"
            path.write_bytes(to_bytes(dataset))
            self.orthanc.store(path)

    def results(self, study_uid: str) -> dict[str, list[Dataset]]:
        return {
            modality: [
                pydicom.dcmread(io.BytesIO(data))
                for data in self.orthanc.download(study_uid, modality)
            ]
            for modality in ("SR", "OT")
        }

    def wait_for_results(self, study_uid: str) -> dict[str, list[Dataset]]:
        until(lambda: all(self.results(study_uid).values()))
        return self.results(study_uid)


@pytest.fixture(scope="module")
def ward(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    listener_port = free_port()
    with (
        service(tiny_models, folder, DICOM_LISTEN_PORT=str(listener_port)) as running,
        run_orthanc(folder, listener_port=listener_port, service_url=running.url) as orthanc,
    ):
        running.settings["DICOM_STORE_URL"] = orthanc.dicomweb
        running.start()
        running.wait()
        yield Ward(running, orthanc, listener_port)


def test_a_photograph_sent_to_the_archive_gets_its_results_by_itself(ward: Ward) -> None:
    photograph = make_dataset()
    ward.store(photograph)
    results = ward.wait_for_results(photograph.StudyInstanceUID)
    ((report,), (heatmap,)) = results["SR"], results["OT"]
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert heatmap.SOPClassUID == SecondaryCaptureImageStorage
    for result in (report, heatmap):
        assert result.PatientID == photograph.PatientID
    modalities = [
        series["00080060"]["Value"][0] for series in ward.orthanc.find(photograph.StudyInstanceUID)
    ]
    assert sorted(modalities) == ["DMS", "OT", "SR"]


def test_stow_into_the_archive_is_enough_too(ward: Ward) -> None:
    photograph = make_dataset(SOPClassUID=VLPhotographicImageStorage, Modality="XC")
    body = (
        b"--x\r\nContent-Type: application/dicom\r\n\r\n" + to_bytes(photograph) + b"\r\n--x--\r\n"
    )
    kind = 'multipart/related; type="application/dicom"; boundary=x'
    url = f"{ward.orthanc.dicomweb}/studies"
    httpx2.post(url, content=body, headers={"Content-Type": kind}, timeout=60).raise_for_status()
    results = ward.wait_for_results(photograph.StudyInstanceUID)
    assert [len(found) for found in results.values()] == [1, 1]


def post(ward: Ward, data: bytes, kind: str = "application/dicom") -> httpx2.Response:
    return httpx2.post(
        f"{ward.service.url}/dicom/studies",
        content=data,
        headers={"Content-Type": kind},
        timeout=60,
    )


def finished(ward: Ward, job_id: str) -> dict[str, Any]:
    def job() -> dict[str, Any]:
        answer = httpx2.get(f"{ward.service.url}/dicom/jobs/{job_id}", timeout=30)
        found: dict[str, Any] = answer.json()
        return found

    until(lambda: job()["state"] in {"stored", "refused", "dead"})
    return job()


def test_a_job_tells_what_became_of_it(ward: Ward) -> None:
    photograph = make_dataset()
    taken = post(ward, to_bytes(photograph))
    assert taken.status_code == 202
    (job,) = taken.json()["jobs"]
    assert "not a medical device" in job["notice"].lower()
    done = finished(ward, job["id"])
    assert (done["state"], done["attempts"], done["problem"]) == ("stored", 0, None)
    results = ward.results(photograph.StudyInstanceUID)
    stored = {str(result.SOPInstanceUID) for found in results.values() for result in found}
    assert set(done["results"]) == stored
    (again,) = post(ward, to_bytes(photograph)).json()["jobs"]
    assert again == done
    for unknown, status in (("0" * 32, 404), ("x", 422)):
        answer = httpx2.get(f"{ward.service.url}/dicom/jobs/{unknown}", timeout=30)
        assert answer.status_code == status


def test_several_parts_have_their_own_fates(ward: Ward) -> None:
    good, report = make_dataset(), ward_result(ward)
    parts = [to_bytes(good), b"no DICOM", to_bytes(report)]
    body = b"".join(
        b"--y\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts
    )
    answer = post(ward, body + b"--y--\r\n", 'multipart/related; boundary="y"').json()
    assert len(answer["jobs"]) == 1
    kinds = [(r["index"], r["problem"]["type"].rsplit(":")[-1]) for r in answer["refused"]]
    assert kinds == [(1, "image-format"), (2, "dicom-not-photograph")]
    assert finished(ward, answer["jobs"][0]["id"])["state"] == "stored"


def ward_result(ward: Ward) -> Dataset:
    photograph = make_dataset()
    post(ward, to_bytes(photograph))
    return ward.wait_for_results(photograph.StudyInstanceUID)["SR"][0]


@pytest.mark.parametrize(
    ("data", "kind", "status", "problem"),
    [
        (b"", "application/dicom", 415, "image-format"),
        (b"x" * 200, "application/dicom", 415, "image-format"),
        (to_bytes(make_dataset())[:600], "application/dicom", 422, "image-corrupt"),
        (to_bytes(make_dataset(StudyInstanceUID="")), "application/dicom", 422, "image-corrupt"),
        (
            to_bytes(make_dataset(SOPClassUID=SecondaryCaptureImageStorage)),
            "application/dicom",
            422,
            "dicom-not-photograph",
        ),
        (
            to_bytes(make_dataset(Manufacturer="DermHybrid")),
            "application/dicom",
            422,
            "dicom-not-photograph",
        ),
        (to_bytes(make_dataset(NumberOfFrames=2)), "application/dicom", 422, "dicom-frame"),
        (b"--x\r\n", "multipart/related; boundary=x", 422, "image-corrupt"),
        (b"--x\r\n\r\n", "multipart/related; boundary=x", 422, "image-corrupt"),
        (b"--x\r\n\r\n\r\n" * 70, "multipart/related; boundary=x", 422, "image-corrupt"),
        (b"x", "multipart/related", 415, "unsupported-media-type"),
        (b"x", "text/plain", 415, "unsupported-media-type"),
    ],
)
def test_what_is_not_taken_is_a_problem(
    ward: Ward, data: bytes, kind: str, status: int, problem: str
) -> None:
    answer = post(ward, data, kind)
    assert (answer.status_code, answer.json()["type"].rsplit(":")[-1]) == (status, problem)


def test_a_photograph_that_cannot_be_answered_is_refused_once(ward: Ward) -> None:
    broken = make_dataset(PhotometricInterpretation="MONOCHROME2")
    (job,) = post(ward, to_bytes(broken)).json()["jobs"]
    done = finished(ward, job["id"])
    assert (done["state"], done["problem"]) == ("refused", "dicom-not-photograph")
    assert done["results"] == []


def send(port: int, dataset: Dataset, title: str = "DERMHYBRID") -> int | None:
    """C-STORE to the service; the status, or None where there was none."""
    entity = AE(ae_title="CAMERA")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=title)
    if not association.is_established or not association.accepted_contexts:
        return None
    try:
        return association.send_c_store(dataset).get("Status")
    finally:
        association.release()


def test_a_camera_sends_to_the_service_itself(ward: Ward) -> None:
    photograph = pydicom.dcmread(io.BytesIO(jpeg_photograph(lesion(3))))
    assert send(ward.listener_port, photograph) == 0
    results = ward.wait_for_results(photograph.StudyInstanceUID)
    assert [len(found) for found in results.values()] == [1, 1]
    assert send(ward.listener_port, photograph) == 0
    assert send(ward.listener_port, photograph, title="OTHER") is None
    for result in [found for several in results.values() for found in several]:
        assert send(ward.listener_port, result) is None
    unanswerable = make_dataset(Manufacturer="DermHybrid")
    assert send(ward.listener_port, unanswerable) == 0xC000
    audit = b"".join(p.read_bytes() for p in (ward.service.log.parent / "audit").rglob("*.jsonl"))
    assert b'"caller":"ae:CAMERA@127.0.0.1"' in audit
    too_long = make_dataset(lesion(3, 1000, 800))
    assert send(ward.listener_port, too_long) is None
    metrics = httpx2.get(f"{ward.service.url}/metrics", timeout=30).text
    for reason in ("rejected", "object-too-long"):
        counted = f'dermhybrid_dicom_associations_ended_total{{reason="{reason}"}} 1.0'
        assert counted in metrics
    assert send(ward.listener_port, photograph) == 0


def test_nothing_of_the_patient_is_logged_or_audited(ward: Ward, tmp_path: Path) -> None:
    marker = "Zzyzx-Quux"
    names: dict[str, Any] = {"PatientName": marker, "PatientID": marker, "StudyDescription": marker}
    photograph = make_dataset(InstanceNumber=2, **names)
    photograph.PatientBirthDate = photograph.StudyTime = marker
    (job,) = post(ward, to_bytes(photograph)).json()["jobs"]
    assert finished(ward, job["id"])["state"] == "stored"
    cut = to_bytes(make_dataset(PixelData=lesion().tobytes()[:-1000], **names))
    (job,) = post(ward, cut).json()["jobs"]
    assert finished(ward, job["id"])["state"] == "refused"
    broken = make_dataset(**names)
    broken.add_new("SOPInstanceUID", "LO", marker)
    post(ward, to_bytes(broken))
    folder = ward.service.log.parent
    records = b"".join(path.read_bytes() for path in (folder / "audit").rglob("*.json*"))
    log = ward.service.log.read_bytes()
    metrics = httpx2.get(f"{ward.service.url}/metrics", timeout=30).content
    assert b'"caller":"127.0.0.1"' in records
    assert b'dermhybrid_dicom_jobs{state="refused"}' in metrics
    for place in (records, log, metrics, job):
        assert marker.lower() not in str(place).lower()


def test_the_documented_commands_work(ward: Ward, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "integrations" / "dicom.md").read_text(encoding="utf-8")
    commands = re.findall(r"curl [^`\n]+", page)
    assert len(commands) == 4
    photograph = make_dataset()
    ward.store(photograph)
    found = httpx2.post(
        f"{ward.orthanc.url}/tools/lookup", content=str(photograph.SOPInstanceUID), timeout=30
    ).json()
    path = tmp_path / "IMAGE.dcm"
    path.write_bytes(to_bytes(make_dataset()))
    curl = require_program("curl")
    for command in commands:
        for written, meant in (
            ("localhost:8000", ward.service.url),
            ("localhost:8042", ward.orthanc.url),
            ("IMAGE.dcm", str(path)),
            ("ORTHANC_ID", found[0]["ID"]),
        ):
            command = command.replace(written, meant)  # noqa: PLW2901
        run = [curl, "--fail", "--silent", "--show-error", *shlex.split(command)[1:]]
        done = subprocess.run(run, capture_output=True, check=True)
        assert done.stdout


def test_the_archive_is_waited_for(tiny_models: Path, tmp_path: Path) -> None:
    photograph = make_dataset()
    with service(tiny_models, tmp_path, DICOM_STORE_PEER="ORTHANC@127.0.0.1:1") as running:
        running.start()
        running.wait()
        url = f"{running.url}/dicom/studies"
        data = to_bytes(photograph)
        (job,) = httpx2.post(url, content=data, headers=DICOM, timeout=60).json()["jobs"]
        job_url = f"{running.url}/dicom/jobs/{job['id']}"
        until(lambda: httpx2.get(job_url, timeout=30).json()["attempts"] >= 2)
        waiting = httpx2.get(job_url, timeout=30).json()
        assert (waiting["state"], waiting["problem"]) == ("answered", "dicom-delivery")
        running.kill(signal.SIGTERM)
        with run_orthanc(tmp_path) as orthanc:
            running.settings["DICOM_STORE_PEER"] = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
            running.start()
            running.wait()
            until(lambda: httpx2.get(job_url, timeout=30).json()["state"] == "stored")
            assert orthanc.count() == {"SR": 1, "OT": 1}
    assert not re.search(b"Roe", (tmp_path / "queue" / "jobs.sqlite").read_bytes())


def test_the_runbooks_command_tries_dead_jobs_again_but_what_ends_the_process(
    tiny_models: Path, tmp_path: Path
) -> None:
    (command,) = re.findall(
        r"^BASE=.*?retry\"$",
        (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    require_program("jq")
    with service(
        tiny_models,
        tmp_path,
        DICOM_STORE_PEER="ORTHANC@127.0.0.1:1",
        DICOM_MAX_ATTEMPTS="1",
    ) as running:
        running.start()
        running.wait()
        for _ in range(3):
            data = to_bytes(make_dataset())
            url = f"{running.url}/dicom/studies"
            httpx2.post(url, content=data, headers=DICOM, timeout=60).raise_for_status()

        def number(state: str) -> int:
            found = httpx2.get(f"{running.url}/dicom/jobs", params={"state": state}, timeout=30)
            return len(found.json()["jobs"])

        until(lambda: number("dead") == 3)
        running.kill(signal.SIGTERM)
        with closing(sqlite3.connect(tmp_path / "queue" / "jobs.sqlite")) as jobs, jobs:
            jobs.execute(
                "UPDATE jobs SET problem = 'process-ended' "
                "WHERE id = (SELECT id FROM jobs WHERE state = 'dead' LIMIT 1)"
            )
        with run_orthanc(tmp_path) as orthanc:
            running.settings["DICOM_STORE_PEER"] = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
            running.start()
            running.wait()
            here = command.replace("http://localhost:8000", running.url)
            subprocess.run(["bash", "-ec", here], check=True)
            until(lambda: number("stored") == 2)
            assert number("dead") == 1
            assert orthanc.count() == {"SR": 2, "OT": 2}


def test_kills_lose_nothing_and_double_nothing(tiny_models: Path, tmp_path: Path) -> None:
    # The whole of it is "100 20", some minutes.
    num_instances, num_kills = map(int, os.environ.get("DICOM_KILL_TEST", "12 4").split())
    study, series = generate_uid(), generate_uid()
    photographs = [
        make_dataset(
            lesion(number, 160, 120),
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            InstanceNumber=number,
        )
        for number in range(1, num_instances + 1)
    ]
    with (
        run_orthanc(tmp_path) as orthanc,
        service(tiny_models, tmp_path, DICOM_STORE_URL=orthanc.dicomweb) as running,
    ):
        running.start()
        running.wait()
        for photograph in photographs:
            answer = httpx2.post(
                f"{running.url}/dicom/studies",
                content=to_bytes(photograph),
                headers=DICOM,
                timeout=60,
            )
            assert answer.status_code == 202
        for kill in range(num_kills):
            # Each time after another while, so that kills fall on every step.
            done = orthanc.count().get("OT", 0)
            goal = min(num_instances, done + 1 + kill % 3)
            until(lambda goal=goal: orthanc.count().get("OT", 0) >= goal)  # type: ignore[misc]
            time.sleep(0.013 * (kill % 7))
            running.kill()
            running.start()
        whole = {"SR": num_instances, "OT": num_instances}
        until(lambda: orthanc.count() == whole, seconds=240 + 10 * num_instances)
        time.sleep(2)  # for what should not come
        assert orthanc.count() == whole
        found = orthanc.download(study, "SR")
        sources = {
            str(
                report.CurrentRequestedProcedureEvidenceSequence[0]
                .ReferencedSeriesSequence[0]
                .ReferencedSOPSequence[0]
                .ReferencedSOPInstanceUID
            )
            for report in (pydicom.dcmread(io.BytesIO(data)) for data in found)
        }
        assert sources == {str(p.SOPInstanceUID) for p in photographs}


def test_a_queue_without_the_extra_is_noticed_at_the_start(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("app.api.dicom", raising=False)
    monkeypatch.setitem(sys.modules, "app.api.dicom", None)
    settings = Settings(
        models_dir=tiny_models, dicom_queue_dir=tmp_path, dicom_store_url="http://127.0.0.1:1"
    )
    with pytest.raises(DicomSupportMissingError, match="DICOM_QUEUE_DIR is set"):
        create_app(settings)
