"""`POST /predict` through the real application, with good and hostile uploads."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from PIL import Image

from app.domain.heatmap_checks import check_heatmap
from app.domain.heatmaps import encode_png
from app.domain.images import decode_image, to_model_input
from app.domain.labels import LABELS
from app.domain.uploads import read_upload
from app.inference.tensorflow_engine import TensorFlowEngine
from app.main import create_app
from app.settings import Settings
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY
from training.synthetic import draw_lesion


def post(client: TestClient, image: bytes, **params: Any) -> Response:
    return client.post("/predict", files={"image": ("lesion.png", image)}, params=params)


def assert_still_answers(client: TestClient, image: bytes) -> None:
    assert post(client, image).status_code == 200


def test_answer_is_the_models_own(client: TestClient, tiny_models: Path, lesion_png: bytes) -> None:
    body = post(client, lesion_png).json()
    engine = TensorFlowEngine(tiny_models / PLAIN_MODEL / "2")
    outputs = engine.predict(to_model_input(decode_image(lesion_png).pixels)[None])
    expected = outputs["probabilities"][0]
    assert list(body["probabilities"]) == list(LABELS)
    np.testing.assert_allclose(list(body["probabilities"].values()), expected, atol=1e-6)
    assert sum(body["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    best = int(expected.argmax())
    assert body["predicted_class"]["label"] == LABELS[best]
    assert body["confidence"] == pytest.approx(float(expected[best]))
    assert body["calibrated"] is False
    assert (body["model"]["name"], body["model"]["version"]) == (PLAIN_MODEL, 2)
    assert len(body["model"]["digest"]) == 64
    assert body["image"] == {"width": 320, "height": 240, "media_type": "image/png", "frame": None}
    assert "Not a medical device" in body["notice"]
    expected_map = np.maximum(outputs["class_activation"][0, best], 0)
    np.testing.assert_allclose(body["heatmap"]["map"], expected_map, atol=1e-6)


def test_only_a_calibrated_model_says_so(client: TestClient, lesion_png: bytes) -> None:
    body = post(client, lesion_png, model=ATTENTION_MODEL).json()
    assert body["calibrated"] is True
    assert client.get(f"/models/{ATTENTION_MODEL}").json()["calibration"]["temperature"] == 1.0
    assert client.get(f"/models/{PLAIN_MODEL}").json()["calibration"] is None


def test_overlay_has_the_uploads_own_size(client: TestClient, lesion_png: bytes) -> None:
    heatmap = post(client, lesion_png).json()["heatmap"]
    overlay = Image.open(io.BytesIO(base64.b64decode(heatmap["overlay"])))
    assert (overlay.format, overlay.size) == ("PNG", (320, 240))
    assert heatmap["media_type"] == "image/png"
    assert heatmap["method"] == "grad-cam"
    assert heatmap["explained_class"] in LABELS


def test_the_overlay_of_a_large_image_is_bounded(tiny_models: Path) -> None:
    settings = Settings(models_dir=tiny_models, max_overlay_side=300)
    image = encode_png(draw_lesion(7, 4, 800, 600))
    with TestClient(create_app(settings)) as client:
        body = post(client, image).json()
    assert body["image"] == {"width": 800, "height": 600, "media_type": "image/png", "frame": None}
    overlay = Image.open(io.BytesIO(base64.b64decode(body["heatmap"]["overlay"])))
    assert overlay.size == (300, 225)


def test_attention_model_explains_by_attention(client: TestClient, lesion_png: bytes) -> None:
    body = post(client, lesion_png, model=ATTENTION_MODEL).json()
    assert body["model"]["name"] == ATTENTION_MODEL
    assert body["heatmap"]["method"] == "attention"
    assert body["heatmap"]["explained_class"] is None
    assert body["heatmap"]["scale"] == np.max(body["heatmap"]["map"]) > 0


@pytest.mark.parametrize("model", [PLAIN_MODEL, ATTENTION_MODEL])
def test_every_class_and_both_methods_can_be_shown(
    client: TestClient, tiny_models: Path, lesion_png: bytes, model: str
) -> None:
    engine = TensorFlowEngine(max((tiny_models / model).iterdir()))
    outputs = engine.predict(to_model_input(decode_image(lesion_png).pixels)[None])
    maps = np.maximum(outputs["class_activation"][0], 0)
    plain = post(client, lesion_png, model=model).json()
    for index, label in enumerate(LABELS):
        for named in ({}, {"heatmap_method": "grad-cam"}):
            body = post(client, lesion_png, model=model, heatmap_class=label, **named).json()
            heatmap = body["heatmap"]
            assert (heatmap["method"], heatmap["explained_class"]) == ("grad-cam", label)
            np.testing.assert_allclose(heatmap["map"], maps[index], atol=1e-6)
            assert body["probabilities"] == plain["probabilities"]
            assert ("blank" in heatmap["flags"]) == (maps[index].max() <= 0)
    grad_cam = post(client, lesion_png, model=model, heatmap_method="grad-cam").json()["heatmap"]
    assert grad_cam["explained_class"] == plain["predicted_class"]["label"]
    if model == ATTENTION_MODEL:
        shown = post(client, lesion_png, model=model, heatmap_method="attention").json()["heatmap"]
        assert shown == plain["heatmap"]
        np.testing.assert_allclose(shown["map"], outputs["attention"][0], atol=1e-6)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"model": ATTENTION_MODEL, "heatmap_method": "attention", "heatmap_class": "mel"},
            "Attention has no class",
        ),
        ({"model": PLAIN_MODEL, "heatmap_method": "attention"}, "has no attention"),
    ],
)
def test_heatmaps_that_there_are_not_are_refused(
    client: TestClient, lesion_png: bytes, path: str, params: dict[str, str], words: str
) -> None:
    response = client.post(path, files={"image": lesion_png}, params=params)
    body = response.json()
    assert response.status_code == 422
    assert body["type"] == "urn:dermhybrid:problem:heatmap-unavailable"
    assert words in body["detail"]


def test_the_heatmaps_checks_are_those_of_its_own_map(
    client: TestClient, lesion_png: bytes
) -> None:
    for label in LABELS:
        heatmap = post(client, lesion_png, heatmap_class=label).json()["heatmap"]
        values = np.array(heatmap["map"], np.float32)
        check = check_heatmap(values, to_model_input(decode_image(lesion_png).pixels))
        assert heatmap["flags"] == list(check.flags)
        for key in ("share_at_border", "share_in_lesion"):
            expected = getattr(check, key)
            assert heatmap[key] == (None if expected is None else pytest.approx(expected, abs=1e-6))


def test_version_can_be_named(client: TestClient, lesion_png: bytes) -> None:
    assert post(client, lesion_png, model=f"{PLAIN_MODEL}@1").json()["model"]["version"] == 1


def test_heatmap_can_be_left_out(client: TestClient, lesion_png: bytes) -> None:
    body = post(client, lesion_png, heatmap="false").json()
    assert body["heatmap"] is None
    assert sum(body["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("media_type", ["image/png", "application/octet-stream"])
def test_raw_body_gives_the_same_answer(
    client: TestClient, lesion_png: bytes, media_type: str
) -> None:
    raw = client.post("/predict", content=lesion_png, headers={"content-type": media_type})
    assert raw.json()["probabilities"] == post(client, lesion_png).json()["probabilities"]


def test_caller_gets_its_own_request_id_back(client: TestClient, lesion_png: bytes) -> None:
    headers = {"x-request-id": "ward-7.order_12"}
    response = client.post("/predict", files={"image": lesion_png}, headers=headers)
    assert response.headers["x-request-id"] == "ward-7.order_12"
    assert response.json()["request_id"] == "ward-7.order_12"


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_lesion(1, 1, 300, 200)).save(buffer, "JPEG")
    return buffer.getvalue()[:-2000]


@pytest.mark.parametrize(
    ("image", "status", "kind", "words"),
    [
        (b"", 422, "image-empty", "0 bytes"),
        (truncated_jpeg(), 422, "image-corrupt", "truncated"),
        (b"Dear colleague, please find", 415, "image-format", "expected JPEG"),
        (encode_png(draw_lesion(1, 1, 111, 300)), 422, "image-too-small", "111 x 300"),
        (b"\xff" * 2_000_001, 413, "image-too-many-bytes", "at most 2,000,000"),
        (b"\xff" * 3_000_000, 413, "image-too-many-bytes", "at most 2,000,000"),
        (
            encode_png(np.zeros((1000, 1001, 3), np.uint8)),
            422,
            "image-too-many-pixels",
            "at most 1,000,000",
        ),
    ],
    ids=["empty", "truncated", "no image", "too small", "too large", "far too large", "pixels"],
)
@pytest.mark.parametrize("raw", [False, True], ids=["form", "raw"])
def test_bad_images_get_a_problem_that_says_what_was_expected(
    client: TestClient,
    lesion_png: bytes,
    image: bytes,
    status: int,
    kind: str,
    words: str,
    raw: bool,
) -> None:
    if raw:
        headers = {"content-type": "image/png"}
        response = client.post("/predict", content=image, headers=headers)
    else:
        response = post(client, image)
    body = response.json()
    assert response.status_code == status == body["status"]
    assert response.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"urn:dermhybrid:problem:{kind}"
    assert words in body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert_still_answers(client, lesion_png)


def test_unannounced_length_is_bounded_too(client: TestClient, lesion_png: bytes) -> None:
    def chunks() -> Any:
        for _ in range(100):
            yield b"\xff" * 50_000

    response = client.post("/predict", content=chunks(), headers={"content-type": "image/png"})
    assert response.status_code == 413
    assert_still_answers(client, lesion_png)


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "", "multipart/mixed"])
def test_other_media_types_are_refused(
    client: TestClient, lesion_png: bytes, media_type: str
) -> None:
    headers = {"content-type": media_type}
    response = client.post("/predict", content=lesion_png, headers=headers)
    assert response.status_code == 415
    assert "multipart/form-data" in response.json()["detail"]


@pytest.mark.parametrize(
    ("charset", "status"),
    [
        ("", 200),
        ("; charset=UTF-8", 200),
        ('; charset="us-ascii"', 200),
        ("; charset=undefined", 415),
        ("; charset=punycode", 415),
        ("; charset=no-such", 415),
    ],
)
def test_a_form_of_a_charset_that_python_may_stumble_over_is_refused(
    client: TestClient, lesion_png: bytes, charset: str, status: int
) -> None:
    start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=x{charset}"}
    body = start + lesion_png + b"\r\n--x--\r\n"
    response = client.post("/predict?heatmap=false", content=body, headers=headers)
    assert response.status_code == status
    assert status == 200 or "charset" in response.json()["detail"]


# Starlette leaves the temporary file of an unterminated part to the garbage collector.
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "form",
    [
        {"files": {"picture": b"x"}},
        {"files": {"image": b"x", "image2": b"y"}},
        {"data": {"image": "text"}},
        {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data"}},
        {
            "content": b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nab",
            "headers": {"content-type": "multipart/form-data; boundary=x"},
        },
    ],
    ids=["other field", "two files", "no file", "no boundary", "unterminated"],
)
def test_bad_forms_are_refused(client: TestClient, lesion_png: bytes, form: dict[str, Any]) -> None:
    response = client.post("/predict", **form)
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    assert_still_answers(client, lesion_png)


def test_unknown_model_is_named_as_such(client: TestClient, lesion_png: bytes) -> None:
    response = post(client, lesion_png, model="resnet")
    assert response.status_code == 404
    assert response.json()["type"] == "urn:dermhybrid:problem:model-not-found"
    assert f"{PLAIN_MODEL}@2" in response.json()["detail"]


@pytest.mark.parametrize(
    "params",
    [
        {"heatmap": "perhaps"},
        {"model": "x" * 81},
        {"heatmap_class": "patient Jane Roe"},
        {"heatmap_method": "saliency"},
    ],
)
def test_bad_parameters_are_named_and_not_repeated(
    client: TestClient, lesion_png: bytes, params: dict[str, str]
) -> None:
    response = post(client, lesion_png, **params)
    assert response.status_code == 422
    assert next(iter(params)) in response.json()["detail"]
    assert next(iter(params.values())) not in response.text


def test_real_samples_are_answered_by_both_models(client: TestClient, samples: list[Path]) -> None:
    for path in samples[::7]:
        for model in (PLAIN_MODEL, ATTENTION_MODEL):
            body = post(client, path.read_bytes(), model=model).json()
            overlay = Image.open(io.BytesIO(base64.b64decode(body["heatmap"]["overlay"])))
            assert overlay.size == (600, 450)
            assert sum(body["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_real_images_are_answered_alike_at_a_reduced_scale(samples: list[Path]) -> None:
    folder = max((REPOSITORY / "models" / "cnn_efficientnet_lite0").iterdir())
    engine = TensorFlowEngine(folder)
    changes = []
    for path in samples:
        with Image.open(path) as photograph:
            large = photograph.resize((3000, 2250), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        large.save(buffer, "JPEG", quality=92)
        plain = to_model_input(decode_image(buffer.getvalue()).pixels)
        reduced = read_upload(buffer.getvalue()).model_input
        assert np.abs(plain.astype(int) - reduced).max() <= 2
        answers = engine.predict(np.stack([plain, reduced]))["probabilities"]
        changes.append(np.abs(answers[0] - answers[1]).max())
    # What the README states of 42 images.
    assert np.median(changes) < 0.00075
    assert max(changes) < 0.0235


def test_a_jpeg_overlay_shows_what_the_png_shows(client: TestClient, lesion_png: bytes) -> None:
    pictures = {}
    for overlay_format in ("png", "jpeg"):
        heatmap = post(client, lesion_png, overlay_format=overlay_format).json()["heatmap"]
        assert heatmap["media_type"] == f"image/{overlay_format}"
        image = Image.open(io.BytesIO(base64.b64decode(heatmap["overlay"])))
        assert image.format == overlay_format.upper()
        pictures[overlay_format] = np.asarray(image, np.int16)
    assert np.abs(pictures["png"] - pictures["jpeg"]).mean() < 4.0
    refused = post(client, lesion_png, overlay_format="gif")
    assert refused.status_code == 422
    assert "png" in refused.json()["detail"]
