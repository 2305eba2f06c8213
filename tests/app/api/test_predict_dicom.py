"""`POST /predict` with DICOM photographs: the same answer as for the same pixels as a picture."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from app.domain.heatmaps import encode_png
from app.main import create_app
from app.settings import Settings
from tests.conftest import ATTENTION_MODEL
from tests.dicom_photographs import (
    encapsulated,
    jpeg_photograph,
    lesion,
    make_dataset,
    rle_photograph,
    to_bytes,
    to_jpeg,
)
from tests.fhir_checks import resources

DICOM = {"Content-Type": "application/dicom"}


@pytest.fixture(scope="module")
def dicom_client(tiny_models: Path) -> Iterator[TestClient]:
    settings = Settings(models_dir=tiny_models, runtime="openvino", max_image_pixels=1_000_000)
    with TestClient(create_app(settings)) as client:
        yield client


def answer(client: TestClient, data: bytes, **params: Any) -> dict[str, Any]:
    response = client.post("/predict", content=data, headers=DICOM, params=params)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    del body["request_id"]
    return body


@pytest.mark.parametrize("params", [{}, {"model": ATTENTION_MODEL}, {"heatmap_class": "mel"}])
def test_lossless_pixels_are_answered_as_a_png(
    dicom_client: TestClient, params: dict[str, Any]
) -> None:
    pixels = lesion()
    expected = answer(dicom_client, encode_png(pixels), **params)
    expected["image"]["media_type"] = "application/dicom"
    for data in (to_bytes(make_dataset(pixels)), rle_photograph(pixels)):
        assert answer(dicom_client, data, **params) == expected


def test_a_jpeg_is_answered_as_the_jpeg_file(dicom_client: TestClient) -> None:
    expected = answer(dicom_client, to_jpeg(lesion()))
    expected["image"]["media_type"] = "application/dicom"
    assert answer(dicom_client, jpeg_photograph(lesion())) == expected


@pytest.mark.parametrize("media_type", ["application/dicom", "application/octet-stream"])
def test_a_form_may_hold_it(dicom_client: TestClient, media_type: str) -> None:
    data = to_bytes(make_dataset())
    response = dicom_client.post("/predict", files={"image": ("a.dcm", data, media_type)})
    body = response.json()
    del body["request_id"]
    assert body == answer(dicom_client, data)
    batch = dicom_client.post("/predict/batch", files={"image": ("a.dcm", data, media_type)})
    line = batch.json()["answer"]
    assert line["probabilities"] == body["probabilities"]


def of_frames(frames: list[bytes]) -> bytes:
    """A DICOM photograph of JPEG frames."""
    return encapsulated(
        frames,
        JPEGBaseline8Bit,
        PhotometricInterpretation="YBR_FULL_422",
        NumberOfFrames=len(frames),
    )


def test_a_frame_is_named_from_1(dicom_client: TestClient) -> None:
    frames = [to_jpeg(lesion(seed)) for seed in (1, 2)]
    data = of_frames(frames)
    for number, frame in enumerate(frames, 1):
        found = answer(dicom_client, data, frame=number)
        assert found["image"]["frame"] == number
        assert found["probabilities"] == answer(dicom_client, frame)["probabilities"]
    for params, kind in (({}, "dicom-frame"), ({"frame": 3}, "dicom-frame")):
        response = dicom_client.post("/predict", content=data, headers=DICOM, params=params)
        assert (response.status_code, response.json()["type"].rsplit(":")[-1]) == (422, kind)
    response = dicom_client.post("/predict", content=data, headers=DICOM, params={"frame": 0})
    assert response.json()["type"].endswith("invalid-request")
    response = dicom_client.post("/predict", content=frames[0], headers=DICOM, params={"frame": 1})
    assert response.json()["type"].endswith("dicom-frame")


@pytest.mark.parametrize("params", [{}, {"frame": 1}])
def test_the_only_frame_has_no_number(dicom_client: TestClient, params: dict[str, int]) -> None:
    for data in (to_bytes(make_dataset()), of_frames([to_jpeg(lesion())])):
        assert answer(dicom_client, data, **params)["image"]["frame"] is None


def test_the_frame_is_in_the_record_and_in_the_bundle(tiny_models: Path, tmp_path: Path) -> None:
    data = of_frames([to_jpeg(lesion(seed)) for seed in (1, 2, 3)])
    settings = Settings(models_dir=tiny_models, runtime="openvino", audit_dir=tmp_path)
    headers = {**DICOM, "X-Request-ID": "request-1"}
    bundles = []
    with TestClient(create_app(settings)) as client:
        for frame in (2, 3):
            params = {"frame": frame, "format": "fhir"}
            response = client.post("/predict", content=data, headers=headers, params=params)
            bundles.append(response.json())
        answer(client, to_bytes(make_dataset()))
    lines = (tmp_path / "audit-000001.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["image"]["frame"] for record in records] == [2, 3, None]
    assert records[0]["upload_sha256"] == records[1]["upload_sha256"]
    assert records[0]["input_sha256"] != records[1]["input_sha256"]
    names = set()
    for frame, bundle in zip((2, 3), bundles, strict=True):
        (report,) = resources(bundle, "DiagnosticReport")
        assert f"frame {frame} of the uploaded image" in report["conclusion"]
        names.add(report["identifier"][0]["value"])
        (media,) = resources(bundle, "Media")
        assert media["content"]["title"].endswith(f"over frame {frame} of the image")
    assert len(names) == 2  # a server keeps both


@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (to_bytes(make_dataset(SOPClassUID=SecondaryCaptureImageStorage)), 422, "dicom-not-ph"),
        (to_bytes(make_dataset(Rows=2000, Columns=2000)), 422, "image-too-many-pixels"),
        (to_bytes(make_dataset())[:-100], 422, "image-corrupt"),
        (to_bytes(make_dataset(BitsAllocated=16)), 415, "image-format"),
        (b"no DICOM", 415, "image-format"),
        (b"", 422, "image-empty"),
    ],
)
def test_what_cannot_be_answered_is_a_problem(
    dicom_client: TestClient, data: bytes, status: int, kind: str
) -> None:
    response = dicom_client.post("/predict", content=data, headers=DICOM)
    assert response.status_code == status
    assert kind in response.json()["type"]
    assert answer(dicom_client, to_bytes(make_dataset()))["probabilities"]


def test_without_the_extra_it_is_said_what_is_missing(
    dicom_client: TestClient, monkeypatch: pytest.MonkeyPatch, lesion_png: bytes
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "app.interop.dicom_pixels", None)
    response = dicom_client.post("/predict", content=to_bytes(make_dataset()), headers=DICOM)
    assert response.status_code == 415
    assert response.json()["type"].endswith("dicom-support-missing")
    assert "extra `interop`" in response.json()["detail"]
    assert answer(dicom_client, lesion_png)["probabilities"]
