"""Files are answered in their order, in batches, each with its own outcome."""

from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import ImageFormatError, ImageTooManyBytesError, ModelFaultError
from app.domain.golden import Outputs
from app.domain.heatmaps import encode_png
from app.domain.images import ImageLimits, RgbImage
from app.domain.uploads import read_upload
from app.inference.files import Answered, Refused, classify, expand
from app.inference.models import LoadedModel, load_model
from app.inference.tensorflow_engine import TensorFlowEngine
from tests.conftest import PLAIN_MODEL
from training.synthetic import draw_lesion

LIMITS = ImageLimits(max_bytes=200_000)


class CountingEngine(TensorFlowEngine):
    """TensorFlow's; gives no finite answer to an image that is all black."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.batch_sizes: list[int] = []

    def predict(self, images: RgbImage) -> Outputs:
        self.batch_sizes.append(len(images))
        outputs = {name: values.copy() for name, values in super().predict(images).items()}
        outputs["logits"][images.max(axis=(1, 2, 3)) == 0] = np.nan
        return outputs


@pytest.fixture
def model(tiny_models: Path) -> LoadedModel:
    return load_model(tiny_models / PLAIN_MODEL / "2", CountingEngine)


def test_each_file_has_its_own_outcome(model: LoadedModel, tmp_path: Path) -> None:
    for number in range(9):
        picture = draw_lesion(number, 3, 150, 130)
        (tmp_path / f"{number}.png").write_bytes(encode_png(picture))
    (tmp_path / "2.png").write_text("no image")
    (tmp_path / "4.png").write_bytes(b"\0" * 300_000)
    (tmp_path / "7.png").write_bytes(encode_png(np.zeros((130, 150, 3), np.uint8)))
    paths = [*expand([tmp_path]), tmp_path / "missing.png"]
    outcomes = list(classify(paths, model, LIMITS, 100, batch_size=4, num_workers=2))
    assert [outcome.path for outcome in outcomes] == paths
    errors = {o.path.stem: type(o.error) for o in outcomes if isinstance(o, Refused)}
    assert errors == {
        "2": ImageFormatError,
        "4": ImageTooManyBytesError,
        "7": ModelFaultError,
        "missing": FileNotFoundError,
    }
    for outcome in outcomes:
        if isinstance(outcome, Answered):
            upload = read_upload(outcome.path.read_bytes(), LIMITS)
            alone = model.predict(upload.model_input)
            np.testing.assert_allclose(
                outcome.prediction.probabilities, alone.probabilities, atol=1e-6
            )
            assert outcome.upload.picture.shape == (87, 100, 3)


def test_the_model_is_given_batches(model: LoadedModel, lesion_png: bytes, tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(lesion_png)
    assert isinstance(model.engine, CountingEngine)
    model.engine.batch_sizes.clear()
    assert len(list(classify(expand([tmp_path]), model, LIMITS, 224, 4, 2))) == 10
    assert model.engine.batch_sizes == [4, 4, 2]
