"""The parts of a prediction without a server: what a request cannot cost less than."""

import base64
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
import tensorflow as tf

from app.domain.heatmaps import draw_overlay, encode_png
from app.domain.images import ImageLimits
from app.domain.uploads import read_upload
from app.inference.explain import explain, interpret
from app.inference.models import Engine
from app.inference.openvino_graph import rewrite_class_activation

LIMITS: Final = ImageLimits()

Stages = dict[str, list[float]]


class Stopwatch:
    """Seconds of each stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: Stages = {}
        self._last = time.perf_counter()

    def start(self) -> None:
        """Begin a round."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.seconds.setdefault(stage, []).append(now - self._last)
        self._last = now


def answer(engine: Engine, jpeg: bytes, watch: Stopwatch) -> None:
    """All that an answer with its overlay takes, but for HTTP."""
    watch.start()
    image = read_upload(jpeg, LIMITS)
    watch.lap("decode")
    outputs = engine.predict(image.model_input[None])
    watch.lap("model")
    prediction = interpret(outputs, 0)
    watch.lap("interpret")
    overlay = draw_overlay(image.picture, explain(prediction))
    watch.lap("draw overlay")
    base64.b64encode(encode_png(overlay)).decode("ascii")
    watch.lap("encode overlay")


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Milliseconds."""
    return {name: round(statistics.median(times) * 1e3, 3) for name, times in seconds.items()}


def heatmap_share(folder: Path, rounds: int, num_threads: int) -> dict[str, Any]:
    """What the outputs for heatmaps add to a model's time, by runtime.

    The network with `probabilities` as its only output is timed beside the whole one; what only
    the heatmaps need is not computed then.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    shares = {}
    for runtime, pair in {
        "tensorflow": _tensorflow_pair(folder),
        "openvino": _openvino_pair(folder, num_threads),
    }.items():
        seconds: dict[str, list[float]] = {name: [] for name in pair}
        for number in range(rounds + 5):
            for name, run in pair.items():
                started = time.perf_counter()
                run(image)
                if number >= 5:
                    seconds[name].append(time.perf_counter() - started)
        found = medians(seconds)
        shares[runtime] = {**found, "share": round(found["whole"] / found["bare"] - 1.0, 4)}
    return shares


def _tensorflow_pair(folder: Path) -> dict[str, Callable[[Any], Any]]:
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    # TensorFlow inlines the signature and drops what nobody asks for.
    bare = tf.function(lambda image: signature(image=image)["probabilities"])
    whole = tf.function(lambda image: signature(image=image))
    bare.variables_owner = loaded  # a signature holds its variables weakly
    return {
        "bare": lambda images: bare(tf.constant(images)),
        "whole": lambda images: whole(tf.constant(images)),
    }


def _openvino_pair(folder: Path, num_threads: int) -> dict[str, Callable[[Any], Any]]:
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": num_threads,
    }
    whole = core.read_model(str(folder))
    rewrite_class_activation(whole)  # as the engine does
    bare = core.read_model(str(folder))
    others = [
        result
        for result in bare.get_results()
        if "probabilities" not in result.input_value(0).get_names()
    ]
    for result in others:
        bare.remove_result(result)
    return {
        "bare": core.compile_model(bare, "CPU", settings),
        "whole": core.compile_model(whole, "CPU", settings),
    }
