"""Results are stored in a real archive, again without harm, and failures are said without names."""

import base64
import time
from pathlib import Path
from threading import Timer

import httpx2
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
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

    def check_later(status: Dataset) -> None:
        check(status)
        time.sleep(1)  # so that the abort has come before the next object goes

    check = dicom_delivery._check
    monkeypatch.setattr(dicom_delivery, "_check", check_later)
    archive, port = AE(ae_title="ARCHIVE"), free_port()
    archive.supported_contexts = AllStoragePresentationContexts
    server = archive.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, take_and_leave)],
    )
    assert server is not None
    try:
        with pytest.raises(DicomDeliveryError, match="left before it had all"):
            make_deliverer(f"ARCHIVE@127.0.0.1:{port}", None, "DERMHYBRID")(results())
    finally:
        server.shutdown()


@pytest.mark.parametrize("target", ["http://127.0.0.1:{}/dicom-web", "ORTHANC@127.0.0.1:{}"])
def test_an_archive_that_is_away_is_an_error_without_names(target: str) -> None:
    deliver = make_deliverer(target.format(free_port()), None, "DERMHYBRID")
    with pytest.raises(DicomDeliveryError) as raised:
        deliver(results())
    assert PATIENT_NAME not in str(raised.value)
