"""An imaging study of the chart: its images come from a real archive, by WADO-RS."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import expect

from tests.app.viewer.conftest import OpenPage, service_with
from tests.app.viewer.records import Records, record_systems
from tests.dicom_photographs import make_dataset, to_bytes
from tests.orthanc import Orthanc, run_orthanc
from tests.pictures import sharp_lesion


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def records(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    folder = tmp_path_factory.mktemp("records")
    with record_systems(folder, DICOM_WEB=archive.dicomweb) as systems:
        yield systems


@pytest.fixture(scope="module")
def service(records: Records, viewer_models: Path) -> Iterator[str]:
    settings = {"models_dir": viewer_models, "default_model": "heavy", **records.settings}
    with service_with(**settings) as (address, _):
        records.register(address)
        yield address


@pytest.fixture
def own_origins(service: str, records: Records) -> tuple[str, ...]:
    return (service, *records.origins)


def test_an_image_of_a_study_and_its_report(
    open_page: OpenPage, records: Records, archive: Orthanc
) -> None:
    photograph = make_dataset(sharp_lesion(320, 240))
    stored = httpx2.post(f"{archive.url}/instances", content=to_bytes(photograph))
    assert stored.status_code == 200
    patient = records.create("Patient", name=[{"family": "Roe"}])
    endpoint = records.create(
        "Endpoint",
        status="active",
        connectionType={"code": "dicom-wado-rs"},
        payloadType=[{"text": "DICOM"}],
        address=f"{records.fhir}/dicom-web",
    )
    instances = [
        {"uid": uid, "sopClass": {"code": "urn:oid:1.2.840.10008.5.1.4.1.1.77.1.7"}, "title": title}
        for uid, title in ((photograph.SOPInstanceUID, "Left leg"), ("1.2.3", "Gone"))
    ]
    study = records.create(
        "ImagingStudy",
        status="available",
        subject={"reference": patient},
        identifier=[{"system": "urn:dicom:uid", "value": f"urn:oid:{photograph.StudyInstanceUID}"}],
        endpoint=[{"reference": endpoint}],
        series=[
            {
                "uid": photograph.SeriesInstanceUID,
                "modality": {"code": "DMS"},
                "instance": instances,
            }
        ],
    )
    page = open_page(query=records.launch("h", patient=patient.removeprefix("Patient/")))
    images = page.locator(".chart-images")
    images.get_by_role("button", name="Gone").click()
    expect(images.get_by_role("alert")).to_contain_text("not in the record any more")
    images.get_by_role("button", name="Left leg").click()
    expect(page.locator("#answer .origin")).to_contain_text("320 × 240, image/jpeg")
    page.get_by_role("button", name="Write into the record").click()
    page.locator("#write input").check()
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".chart-report code")).to_be_visible()
    (report,) = records.find("DiagnosticReport", subject=patient)
    assert report["imagingStudy"] == [{"reference": study}]
