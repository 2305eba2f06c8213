"""What training takes from artifacts: a teacher's answers, and weights to begin with.

Both check every byte first, so that an artifact's manifest is its identity.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Final

import keras
import numpy as np
import numpy.typing as npt
import openvino
import tensorflow as tf

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.labels import NUM_CLASSES
from app.domain.manifest import read_manifest, verify_files
from app.inference.openvino_engine import OpenVinoEngine
from app.inference.processors import available_processors
from training.architectures import build_hybrid
from training.config import Precision, Recipe
from training.hints import hint_maps
from training.inference_graph import SIGNATURE, stored_variables

_STORED_KEY: Final = "stored/{}/.ATTRIBUTES/VARIABLE_VALUE"
"""Of `InferenceGraph.stored` in a SavedModel's checkpoint."""


def load_answers(folder: Path, *, compiled: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Load an artifact to be asked within a graph.

    Args:
        folder: `models/NAME/VERSION`.
        compiled: XLA compiles that graph, as for GPUs: TensorFlow answers. Otherwise OpenVINO
            does, in a third of the time on a processor.

    Returns:
        A function of images (batch, 224, 224, 3) uint8 sRGB that gives logits (batch, 7)
        float32. It owns the model: keep it as long as a graph that calls it.

    Raises:
        ArtifactError: The artifact is not intact.
    """
    checked = _checked(folder)
    return _tensorflow_answers(checked) if compiled else _openvino_answers(checked)


def load_lessons(
    folder: Path, *, compiled: bool
) -> tuple[Callable[[tf.Tensor], tuple[tf.Tensor, Sequence[tf.Tensor]]], tuple[int, ...]]:
    """Rebuild an artifact's network, to be asked for its answers and maps within a graph.

    Args:
        folder: `models/NAME/VERSION`, its manifest with the recipe that made it.
        compiled: As `load_answers`.

    Returns:
        A function of images (batch, 224, 224, 3) uint8 sRGB that gives logits (batch, 7) float32
        and the maps of `hint_maps`; and how many channels those have. It owns the model, as that
        of `load_answers`.

    Raises:
        ArtifactError: The artifact is not intact.
        ValueError: Its manifest has no recipe of `training.config`, or it answers with the mean
            over mirrorings, which has maps of no image.
    """
    hybrid = _rebuild(folder.resolve())
    outputs = [hybrid.output, *hint_maps(hybrid)]
    channels = tuple(maps.shape[-1] for maps in outputs[1:])
    view = keras.Model(hybrid.input, outputs)
    ask = _tensorflow_view(view) if compiled else _openvino_view(view)

    def lesson(images: tf.Tensor) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        logits, *maps = ask(tf.cast(images, tf.float32) / 255.0)
        return logits, maps

    return lesson, channels


def _rebuild(folder: Path) -> keras.Model:
    manifest, _ = read_manifest(folder)
    try:
        recipe = Recipe.from_json(manifest.training.recipe)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder} names no recipe that its network could be made by ({error!r}): it can teach "
            "by its answers alone; set hint_weight=0."
        ) from error
    if recipe.mirrored:
        raise ValueError(
            f"{folder} answers with the mean over mirrorings, which has maps of no image: set "
            "hint_weight=0, or name a teacher that is not mirrored."
        )
    recipe = replace(recipe, backbone_weights="none", initial_share=0.0, frozen_layers=0)
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(Precision.FLOAT32.value)  # as artifacts compute
    try:
        hybrid = build_hybrid(recipe, MODEL_INPUT_SIZE)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    assign_stored(hybrid, folder)
    return hybrid


def _tensorflow_view(view: keras.Model) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    return lambda images: view(images, training=False)


def _openvino_view(view: keras.Model) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    shapes = [output.shape for output in view.outputs]
    names = [f"output_{index}" for index in range(len(shapes))]
    spec = tf.TensorSpec([None, *view.inputs[0].shape[1:]], tf.float32, name="image")
    graph = tf.function(
        lambda image: dict(zip(names, view(image, training=False), strict=True)), [spec]
    )
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": available_processors(),
    }
    # Shared, the weights would be gone with the Keras model.
    model = openvino.convert_model(graph.get_concrete_function(), share_weights=False)
    compiled, turn = openvino.Core().compile_model(model, "CPU", settings), Lock()

    def outputs(images: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        with turn:
            answers = compiled({"image": images})
            return [answers[name].copy() for name in names]

    def ask(images: tf.Tensor) -> list[tf.Tensor]:
        answers = tf.numpy_function(outputs, [images], [tf.float32] * len(shapes))
        return [tf.ensure_shape(each, shape) for each, shape in zip(answers, shapes, strict=True)]

    return ask


def _tensorflow_answers(folder: Path) -> Callable[[tf.Tensor], tf.Tensor]:
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures[SIGNATURE]

    def answer(images: tf.Tensor) -> tf.Tensor:
        return serve(image=images)["logits"]

    # A signature holds its variables weakly.
    answer.loaded = loaded  # type: ignore[attr-defined]
    return answer


def _openvino_answers(folder: Path) -> Callable[[tf.Tensor], tf.Tensor]:
    engine, turn = OpenVinoEngine(folder, num_threads=available_processors()), Lock()

    def logits(images: RgbImage) -> npt.NDArray[np.float32]:
        with turn:  # replicas ask at once
            return engine.predict(images)["logits"]

    def answer(images: tf.Tensor) -> tf.Tensor:
        answers = tf.numpy_function(logits, [images], tf.float32)
        return tf.ensure_shape(answers, [None, NUM_CLASSES])

    return answer


def assign_stored(model: keras.Model, folder: Path) -> None:
    """Give a hybrid the weights of an artifact, whose matrices are in half precision.

    Args:
        model: From `build_hybrid`, at any image size that its layers allow.
        folder: `models/NAME/VERSION`, exported from the same layers.

    Raises:
        ArtifactError: The artifact is not intact.
        ValueError: Its weights are of other shapes; the model is then as it was.
    """
    reader = tf.train.load_checkpoint(str(_checked(folder) / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    variables = stored_variables(model)
    num_stored = sum(key.startswith("stored/") for key in shapes)
    if num_stored != len(variables):
        raise ValueError(
            f"{folder} holds {num_stored} weights, the recipe's network has {len(variables)}; name "
            "an initial model with the same backbone, attention and CNN path."
        )
    for index, variable in enumerate(variables):
        received = tuple(shapes[_STORED_KEY.format(index)])
        if received != tuple(variable.shape):
            raise ValueError(
                f"{folder}: weight {index} has the shape {received}, {variable.path} of the "
                f"recipe's network {tuple(variable.shape)}; name an initial model with the same "
                "layers."
            )
    for index, variable in enumerate(variables):
        if "int" in variable.dtype:
            continue  # a dropout layer's seed, which is this run's own
        variable.assign(tf.cast(reader.get_tensor(_STORED_KEY.format(index)), variable.dtype))


def _checked(folder: Path) -> Path:
    """An artifact's absolute folder, after a look at every byte of it."""
    folder = folder.resolve()
    manifest, _ = read_manifest(folder)
    verify_files(folder, manifest)
    return folder
