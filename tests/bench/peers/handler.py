"""What every peer does for a request: the service's own decoding, model and overlay.

Peers differ from the service, and from each other, in nothing but how they serve this.
"""

import base64
import json
import os
from pathlib import Path
from threading import Lock

import numpy as np

from app.domain.heatmaps import draw_overlay, encode_png
from app.domain.images import ImageLimits
from app.domain.labels import LABELS
from app.domain.uploads import Upload, read_upload
from app.inference.explain import Prediction, explain
from app.inference.models import load_model
from app.inference.process import prepare_process
from app.inference.runtimes import engine_maker

LIMITS = ImageLimits()
MAX_BATCH_SIZE = 8


class Handler:
    """Answers uploads; safe to call from several threads, which take turns at the model."""

    def __init__(self) -> None:
        """Load the artifact that `BENCH_MODEL` names, in OpenVINO, float32."""
        prepare_process()
        self._model = load_model(Path(os.environ["BENCH_MODEL"]), engine_maker("openvino"))
        self._turn = Lock()

    def answer(self, uploads: list[bytes]) -> list[bytes]:
        """JSON for each JPEG file, with the overlay."""
        images = [decode(data) for data in uploads]
        predictions = self.predict(images)
        return [render(*pair) for pair in zip(images, predictions, strict=True)]

    def predict(self, images: list[Upload]) -> list[Prediction]:
        """One model call."""
        with self._turn:
            return self._model.predict_batch(np.stack([image.model_input for image in images]))


def decode(data: bytes) -> Upload:
    """An upload as the model and the overlay need it."""
    return read_upload(data, LIMITS)


def render(image: Upload, prediction: Prediction) -> bytes:
    """The answer as JSON."""
    overlay = encode_png(draw_overlay(image.picture, explain(prediction)))
    return json.dumps(
        {
            "predicted_class": prediction.predicted.label,
            "probabilities": dict(zip(LABELS, prediction.probabilities.tolist(), strict=True)),
            "overlay": base64.b64encode(overlay).decode("ascii"),
        }
    ).encode()
