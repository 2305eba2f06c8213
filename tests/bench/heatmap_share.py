"""What the outputs for heatmaps add to a model's time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import tensorflow as tf

from app.inference.openvino_graph import rewrite_class_activation
from tests.bench.bare import medians


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
