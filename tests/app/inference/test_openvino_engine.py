"""OpenVINO gives TensorFlow's answers and maps, from the same artifacts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient

from app.domain.errors import ArtifactError, GoldenExampleError
from app.domain.heatmaps import encode_png
from app.domain.manifest import QUANTIZED_NAME, Runtime, read_manifest, write_manifest
from app.inference.models import load_model
from app.inference.registry import load_registry
from app.inference.runtimes import engine_maker
from app.main import create_app
from app.settings import Settings
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY
from tests.tiny_artifact import TinyModel, add_quantized

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
PNG = {"Content-Type": "image/png"}


def tiny_probabilities(seed: int) -> npt.NDArray[np.float32]:
    model = TinyModel(attention=False, seed=seed)
    probabilities: npt.NDArray[np.float32] = model.serve(IMAGES)["probabilities"].numpy()
    return probabilities


def assert_same_answers(directory: Path) -> None:
    expected = engine_maker("tensorflow")(directory).predict(IMAGES)
    engine = engine_maker("openvino", 1)(directory)
    for batch in (IMAGES, IMAGES[:1]):
        outputs = engine.predict(batch)
        assert set(outputs) == set(expected)
        for name, values in outputs.items():
            assert values.dtype == np.float32
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(
                values, expected[name][: len(batch)], atol=1e-4 * scale, err_msg=name
            )


@pytest.mark.parametrize("name", [PLAIN_MODEL, ATTENTION_MODEL])
def test_small_models_answer_the_same(tiny_models: Path, name: str) -> None:
    assert_same_answers(tiny_models / name / "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "directory", sorted((REPOSITORY / "models").glob("*/*/")), ids=lambda path: path.parent.name
)
def test_shipped_models_answer_the_same(directory: Path) -> None:
    assert_same_answers(directory)


def test_answers_stay_as_they_are_when_the_next_one_comes(tiny_models: Path) -> None:
    engine = engine_maker("openvino")(tiny_models / PLAIN_MODEL / "1")
    first = engine.predict(IMAGES[:1])["probabilities"]
    kept = first.copy()
    engine.predict(IMAGES[1:2])
    np.testing.assert_array_equal(first, kept)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="OpenVINO cannot load it"):
        engine_maker("openvino")(tmp_path)


def test_the_service_on_openvino_does_not_load_tensorflow(tiny_models: Path) -> None:
    script = (
        "import sys; from app.main import create_app; from app.settings import Settings; "
        "from fastapi.testclient import TestClient\n"
        "with TestClient(create_app(Settings())) as client:\n"
        "    assert client.get('/health/ready').status_code == 200\n"
        "assert 'openvino' in sys.modules\n"
        "assert not {'tensorflow', 'openvino_telemetry'} & set(sys.modules)"
    )
    environment = {**os.environ, "RUNTIME": "openvino", "MODELS_DIR": str(tiny_models)}
    subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=REPOSITORY, check=True, timeout=120
    )


def test_golden_examples_hold_in_both_runtimes(tiny_models: Path) -> None:
    registry = load_registry(tiny_models, None, engine_maker("openvino"))
    assert len(registry.all()) == 3


def test_the_8_bit_form_answers_where_it_is_asked_for_and_there(own_models: Path) -> None:
    folder = own_models / PLAIN_MODEL / "1"
    add_quantized(folder, seed=9)
    other = tiny_probabilities(seed=9)
    settings = Settings(models_dir=own_models, runtime="openvino-int8")
    with TestClient(create_app(settings)) as client:
        answers = [
            client.post(f"/predict?model={name}@1", content=encode_png(IMAGES[0]), headers=PNG)
            for name in (PLAIN_MODEL, ATTENTION_MODEL)
        ]
        listed = {
            (model["name"], model["version"]): model["runtime"]
            for model in client.get("/models").json()["models"]
        }
        described = client.get(f"/models/{PLAIN_MODEL}@1").json()
        metrics = client.get("/metrics").text
    bodies = [answer.json() for answer in answers]
    assert [body["model"]["runtime"] for body in bodies] == ["openvino-int8", "openvino"]
    np.testing.assert_allclose(list(bodies[0]["probabilities"].values()), other[0], atol=1e-4)
    assert listed[PLAIN_MODEL, 1] == "openvino-int8"
    assert listed[PLAIN_MODEL, 2] == "openvino"
    assert described["quantized"]["accuracy"] == {"before": 0.5, "after": 0.5}
    assert 'runtime="openvino-int8",version="1"' in metrics


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_the_8_bit_form_answers_nowhere_else(own_models: Path, runtime: Runtime) -> None:
    folder = own_models / PLAIN_MODEL / "1"
    add_quantized(folder, seed=9)
    model = load_model(folder, engine_maker(runtime))
    expected = tiny_probabilities(seed=1)
    received = model.engine.predict(IMAGES)["probabilities"]
    assert model.engine.runtime == runtime
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_an_8_bit_form_with_other_answers_than_its_own_is_refused(own_models: Path) -> None:
    folder = own_models / PLAIN_MODEL / "1"
    add_quantized(folder, seed=9)
    manifest, _ = read_manifest(folder)
    assert manifest.quantized is not None
    wrong = manifest.quantized.model_copy(update={"golden_example": manifest.golden_example})
    write_manifest(folder, manifest.model_copy(update={"quantized": wrong}))
    load_model(folder, engine_maker("openvino"))
    with pytest.raises(GoldenExampleError, match="differ"):
        load_model(folder, engine_maker("openvino-int8"))


def test_an_8_bit_form_that_is_no_graph_is_refused(own_models: Path) -> None:
    folder = own_models / PLAIN_MODEL / "1"
    add_quantized(folder, seed=9)
    (folder / QUANTIZED_NAME).write_text("<net/>")
    with pytest.raises(ArtifactError, match="OpenVINO cannot load it"):
        engine_maker("openvino-int8")(folder)
