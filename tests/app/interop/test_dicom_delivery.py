"""Results are stored in a real archive, again without harm, and failures are said without names."""

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer

import httpx2
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, DEFAULT_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.events import Event

from app.api.dicom_results import to_file
from app.domain.errors import DicomDeliveryError
from app.interop import dicom_delivery
from app.interop.dicom_capture import make_capture
from app.interop.dicom_delivery import make_deliverer
from app.interop.dicom_report import make_report
from tests.app.interop.test_dicom_results import OVERLAY, make_answer, make_source
from tests.dicom_photographs import PATIENT_NAME
from tests.orthanc import run_orthanc
from tests.ports import free_port

SECRET = "Basic " + base64.b64encode(b"dermhybrid:secret").decode()


def results() -> list[bytes]:
    source = make_source()
    made = [make_report(source, make_answer()), make_capture(source, make_answer(), OVERLAY, "")]
    return [to_file(result) for result in made]


def test_stow_needs_the_password_and_stores_once(tmp_path: Path) -> None:
    files = results()
    with run_orthanc(tmp_path, users={"dermhybrid": "secret"}) as orthanc:
        for wrong in (None, "Basic eDp5"):
            with pytest.raises(DicomDeliveryError, match="STOW-RS failed"):
                make_deliverer(orthanc.dicomweb, wrong, "DERMHYBRID")(files)
        for _ in range(2):
            make_deliverer(orthanc.dicomweb, SECRET, "DERMHYBRID")(files)
        answer = httpx2.get(
            f"{orthanc.url}/statistics", headers={"Authorization": SECRET}, timeout=30
        )
        assert answer.json()["CountInstances"] == 2


def test_c_store_stores_once(tmp_path: Path) -> None:
    files = results()
    with run_orthanc(tmp_path) as orthanc:
        for _ in range(2):
            target = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
            make_deliverer(target, None, "DERMHYBRID")(files)
        assert orthanc.count() == {"SR": 1, "OT": 1}


def test_an_archive_that_leaves_before_it_has_all_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take_and_leave(event: Event) -> int:
        Timer(0.2, event.assoc.abort).start()
        return 0

    def look_later(status: Dataset) -> bool:
        found = is_stored(status)
        time.sleep(1)  # so that the abort has come before the next object goes
        return found

    is_stored = dicom_delivery._is_stored
    monkeypatch.setattr(dicom_delivery, "_is_stored", look_later)
    with (
        archive(take_and_leave) as target,
        pytest.raises(DicomDeliveryError, match="left before it had all"),
    ):
        make_deliverer(target, None, "DERMHYBRID")(results())


def test_an_archive_that_takes_only_what_every_one_has_to_is_sent_that() -> None:
    received: list[Dataset] = []

    def take(event: Event) -> int:
        received.append(event.dataset)
        return 0

    with archive(take, ImplicitVRLittleEndian) as target:
        make_deliverer(target, None, "DERMHYBRID")(results())
    assert [dataset.Modality for dataset in received] == ["SR", "OT"]
    assert [str(dataset.PatientName) for dataset in received] == [PATIENT_NAME] * 2


def test_what_is_there_already_is_stored_and_the_rest_is_sent_too() -> None:
    there: list[str] = []
    statuses = iter([0, 0xA700])  # the archive is full after the first one

    def take(event: Event) -> int:
        uid = str(event.dataset.SOPInstanceUID)
        if uid in there:
            return 0x0111
        status = next(statuses, 0)
        there.extend([uid] if status == 0 else [])
        return status

    files = results()
    with archive(take) as target:
        deliver = make_deliverer(target, None, "DERMHYBRID")
        with pytest.raises(DicomDeliveryError, match="C-STORE did not succeed"):
            deliver(files)
        assert len(there) == 1
        deliver(files)
        deliver(files)
    assert len(there) == 2


JSON = "application/dicom+json; charset=utf-8"


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize("reason", [None, 0x0111, 0xA700])
def test_what_stow_says_it_has_is_believed_and_nothing_else(
    status: int, reason: int | None
) -> None:
    files = results()
    uids = [str(dcmread(io.BytesIO(file)).SOPInstanceUID) for file in files]
    answer = Dataset()
    answer.ReferencedSOPSequence = [item(uid) for uid in (uids if reason is None else uids[:1])]
    if reason is not None:
        answer.FailedSOPSequence = [item(uids[1], reason)]
    with stow(status, JSON, json.dumps(answer.to_json_dict()).encode()) as target:
        deliver = make_deliverer(target, None, "DERMHYBRID")
        if reason in (None, 0x0111):
            deliver(files)
        else:
            with pytest.raises(DicomDeliveryError, match="only a part"):
                deliver(files)


@pytest.mark.parametrize(
    ("status", "media_type", "body"),
    [
        (200, "text/html", b"<title>Log in</title>"),
        (200, JSON, b"{}"),
        (200, JSON, b"[]"),
        (200, JSON, b""),
        (302, JSON, b"{}"),
        (503, JSON, b"{}"),
    ],
)
def test_a_success_without_what_is_stored_is_none(
    status: int, media_type: str, body: bytes
) -> None:
    with stow(status, media_type, body) as target, pytest.raises(DicomDeliveryError):
        make_deliverer(target, None, "DERMHYBRID")(results())


def item(uid: str, reason: int | None = None) -> Dataset:
    found = Dataset()
    found.ReferencedSOPInstanceUID = uid
    if reason is not None:
        found.FailureReason = reason
    return found


@contextmanager
def stow(status: int, media_type: str, body: bytes) -> Iterator[str]:
    """A DICOMweb service that always answers the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dicom-web"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def archive(take: Callable[[Event], int], syntax: UID | None = None) -> Iterator[str]:
    """A Storage SCP, of one transfer syntax or of those that are common."""
    entity, port = AE(ae_title="ARCHIVE"), free_port()
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(
            context.abstract_syntax or "", syntax or DEFAULT_TRANSFER_SYNTAXES
        )
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)]
    )
    assert server is not None
    try:
        yield f"ARCHIVE@127.0.0.1:{port}"
    finally:
        server.shutdown()


@pytest.mark.parametrize("target", ["http://127.0.0.1:{}/dicom-web", "ORTHANC@127.0.0.1:{}"])
def test_an_archive_that_is_away_is_an_error_without_names(target: str) -> None:
    deliver = make_deliverer(target.format(free_port()), None, "DERMHYBRID")
    with pytest.raises(DicomDeliveryError) as raised:
        deliver(results())
    assert PATIENT_NAME not in str(raised.value)
