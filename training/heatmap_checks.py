"""How far heatmaps can be trusted: measured on validation images, through the code that serves.

- Faithfulness: the areas under deletion and insertion curves (Petsiuk, Das and Saenko, "RISE:
  Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018). The places that a map
  marks most are blurred first, or are the first that a blurred picture gets back; where they
  matter, the predicted class's probability falls early, or rises early. A map of the picture's
  middle and a random one are measured beside it: without them the areas mean nothing.
- Dependence on what was learnt (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018):
  the rank correlation of a map with the same model's after its weights were shuffled. Where that is
  high, the map shows the picture and the architecture, and not what the model learnt.
- Place: the shares that `app.domain.heatmap_checks` looks at, and how many maps it flags.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.integrate import trapezoid
from scipy.stats import rankdata

from app.domain.golden import Outputs
from app.domain.heatmap_checks import (
    LEAST_IN_LESION,
    MOST_AT_BORDER,
    HeatmapCheck,
    HeatmapFlag,
    around_lesion,
    check_heatmap,
    enlarge,
    share_in,
)
from app.domain.heatmaps import HeatmapMethod
from app.domain.images import RgbImage
from app.domain.labels import CLASSES
from app.inference.explain import Prediction, explain, interpret
from app.inference.models import load_model
from app.inference.runtimes import engine_maker
from training.inference_graph import SIGNATURE
from training.prepare import Part, PreparedData
from training.served import BATCH_SIZE, require_split

SEED: Final = 20180814
FRACTIONS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Of the pixels, blurred or sharp again; closer together where curves fall fastest."""
BLUR_SIGMA: Final = 16.0
"""Pixels; half of a map's cell, so that a cell's own content is gone."""
CURVES_EVERY: Final = 5
"""Curves cost fifty answers an image: they and the shuffled models take every such one only."""
SHUFFLES: Final = 2
"""Shuffled models of each scope."""
SCOPES: Final = {"head": (2,), "all": (2, 3, 4)}
"""Ranks of the variables that are shuffled: only a hybrid's head has matrices."""
BASELINES: Final = ("centre", "random")
_RESAMPLES: Final = 1000

Values = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
Answer = Callable[[RgbImage], Outputs]

_across: Final = cv2.getGaussianKernel(7, 7 / 5)
CENTRE: Final[Values] = np.asarray(_across @ _across.T, np.float32)
"""(7, 7): a map that knows nothing but that lesions are photographed in the middle."""


def measure(
    targets: list[Path],
    data: PreparedData,
    every: int,
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Measure every heatmap that some models offer.

    Args:
        targets: `models/NAME/VERSION`.
        data: What the models were trained on; its validation part is used.
        every: Take every such image only; curves and shuffled models every fifth of these.
        report: Called with (images done, all of them).

    Returns:
        JSON values: counts, `lesion` (shares of its area and of a central map), the `thresholds`
        of the flags, and by model's title `methods` and `baselines`.

    Raises:
        ArtifactError: A target must not be served.
        ValueError: A target was trained on other data or on another split, or the images are too
            few to find a lesion.
    """
    rows = data.rows(Part.VALIDATION)[::every]
    images = data.images[rows]
    around = [mask for mask in map(around_lesion, images) if mask.any()]
    if not around:
        raise ValueError("No lesion was found; take more images.")
    num_chosen = len(images[::CURVES_EVERY])
    models: dict[str, Any] = {}
    for number, target in enumerate(targets):
        model = load_model(target.resolve(), engine_maker("openvino"))
        require_split(model.manifest, data)
        predictions = _interpret(model.engine.predict, images)
        methods = [m for m in HeatmapMethod if m != "attention" or model.manifest.has_attention]

        def progress(done: int, before: int = number * num_chosen) -> None:
            report(before + done, len(targets) * num_chosen)

        chosen, answers = images[::CURVES_EVERY], predictions[::CURVES_EVERY]
        found = _curves(model.engine.predict, chosen, answers, methods, progress)
        kept = _correlations(target.resolve(), chosen, answers, methods)
        for method in methods:
            place = _summarise(_place(predictions, method, images))
            found["methods"][method].update(kept[method], place=place)
        models[f"{model.manifest.title}, version {model.manifest.version}"] = found
    return {
        "num_images": len(images),
        "every": every,
        "num_curve_images": num_chosen,
        "num_shuffles": SHUFFLES,
        "lesion": {
            "num_found": len(around),
            "area": _mean([float(mask.mean()) for mask in around]),
            "centre": _mean([share_in(CENTRE, mask) or 0.0 for mask in around]),
        },
        "thresholds": {"most_at_border": MOST_AT_BORDER, "least_in_lesion": LEAST_IN_LESION},
        "models": models,
    }


def _interpret(answer: Answer, images: RgbImage) -> list[Prediction]:
    predictions = []
    for start in range(0, len(images), BATCH_SIZE):
        outputs = answer(images[start : start + BATCH_SIZE])
        predictions += [interpret(outputs, row) for row in range(len(outputs["probabilities"]))]
    return predictions


def _place(
    predictions: list[Prediction], method: HeatmapMethod, images: RgbImage
) -> list[HeatmapCheck]:
    return [
        check_heatmap(explain(prediction, method).values, image)
        for prediction, image in zip(predictions, images, strict=True)
    ]


def _summarise(checks: list[HeatmapCheck]) -> dict[str, Any]:
    at_border = np.array([c.share_at_border for c in checks if c.share_at_border is not None])
    in_lesion = np.array([c.share_in_lesion for c in checks if c.share_in_lesion is not None])
    flagged = {flag: sum(flag in check.flags for check in checks) for flag in HeatmapFlag}
    return {
        "share_at_border": _percentiles(at_border),
        "share_in_lesion": _percentiles(in_lesion),
        "mean_in_lesion": _mean(in_lesion),
        "flagged": {flag.value: round(n / len(checks), 4) for flag, n in flagged.items()},
    }


def _percentiles(values: Numbers) -> list[float] | None:
    if not len(values):
        return None
    return [round(float(p), 4) for p in np.percentile(values, (5, 50, 95))]


def curve_areas(
    answer: Answer, image: RgbImage, maps: dict[str, Values], random: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """The areas under one image's deletion and insertion curves.

    Args:
        answer: Of a model.
        image: (224, 224, 3) uint8.
        maps: (7, 7) each, by name.
        random: Orders pixels of the same value.

    Returns:
        By the map's name, the areas (deletion, insertion) of the predicted class's probability
        over the fraction of pixels, in [0, 1]. For a good map the first is small, the second
        large. Under `"ends"`: that probability for the image, and for the wholly blurred one.
    """
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), BLUR_SIGMA), np.uint8)
    inner = FRACTIONS[1:-1]
    pictures = [image, blurred]
    for values in maps.values():
        fine = enlarge(values).ravel()
        rank = np.empty(fine.size, np.int64)
        rank[np.lexsort((random.random(fine.size), -fine))] = np.arange(fine.size)
        ranks = rank.reshape(image.shape[0], -1, 1)
        marked = [ranks < round(fraction * fine.size) for fraction in inner]
        pictures += [np.where(top, blurred, image) for top in marked]
        pictures += [np.where(top, image, blurred) for top in marked]
    stacked = np.stack(pictures)
    starts = range(0, len(stacked), BATCH_SIZE)
    found = [answer(stacked[i : i + BATCH_SIZE])["probabilities"] for i in starts]
    probabilities = np.concatenate(found)
    clean, gone, *between = probabilities[:, int(probabilities[0].argmax())].tolist()
    areas = {"ends": (clean, gone)}
    for number, name in enumerate(maps):
        deleted, inserted = np.reshape(between, (len(maps), 2, len(inner)))[number].tolist()
        areas[name] = (
            float(trapezoid([clean, *deleted, gone], FRACTIONS)),
            float(trapezoid([gone, *inserted, clean], FRACTIONS)),
        )
    return areas


def _curves(
    answer: Answer,
    images: RgbImage,
    predictions: list[Prediction],
    methods: list[HeatmapMethod],
    progress: Callable[[int], None],
) -> dict[str, Any]:
    random = np.random.default_rng(SEED)
    areas: dict[str, list[tuple[float, float] | None]] = {}
    for done, (image, prediction) in enumerate(zip(images, predictions, strict=True), start=1):
        shown = {method: explain(prediction, method) for method in methods}
        # Nothing can be ranked by a blank map: it is counted, and not measured.
        maps: dict[str, Values] = {m: h.values for m, h in shown.items() if h.scale > 0}
        maps |= {"centre": CENTRE, "random": random.random((7, 7), np.float32)}
        found = curve_areas(answer, image, maps, random)
        for name in ("ends", *methods, *BASELINES):
            areas.setdefault(name, []).append(found.get(name))
        progress(done)
    clean, gone = np.array(areas["ends"]).mean(axis=0)
    return {
        "probability": {"clean": round(clean, 4), "blurred": round(gone, 4)},
        "baselines": {name: _mean_areas(areas[name]) for name in BASELINES},
        "methods": {
            method: _mean_areas(areas[method])
            | {f"better_than_{name}": _gains(areas[method], areas[name]) for name in BASELINES}
            for method in methods
        },
    }


def _mean_areas(areas: list[tuple[float, float] | None]) -> dict[str, Any]:
    deletion, insertion = zip(*[pair for pair in areas if pair] or [(np.nan, np.nan)], strict=True)
    num_images = sum(pair is not None for pair in areas)
    return {
        "num_images": num_images,
        "deletion": _mean(deletion) if num_images else None,
        "insertion": _mean(insertion) if num_images else None,
    }


def _gains(
    own: list[tuple[float, float] | None], others: list[tuple[float, float] | None]
) -> dict[str, list[float]] | None:
    """By how much a map's areas are better on the same images: mean, 95 % bootstrap interval."""
    pairs = [(a, b) for a, b in zip(own, others, strict=True) if a and b]
    if not pairs:
        return None
    mine, theirs = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    gains = (mine - theirs) * (-1.0, 1.0)  # a good deletion area is small
    random = np.random.default_rng(SEED)
    drawn = random.integers(0, len(gains), (_RESAMPLES, len(gains)))
    low, high = np.percentile(gains[drawn].mean(axis=1), (2.5, 97.5), axis=0)
    rows = zip(("deletion", "insertion"), gains.mean(axis=0), low, high, strict=True)
    return {name: [round(float(value), 4) for value in values] for name, *values in rows}


def _correlations(
    folder: Path, images: RgbImage, predictions: list[Prediction], methods: list[HeatmapMethod]
) -> dict[HeatmapMethod, dict[str, Any]]:
    """Rank correlations of maps with a shuffled model's, and with the next image's, by method.

    The latter is what two maps have in common without having an image in common.
    """
    before = {m: [explain(p, m).values for p in predictions] for m in methods}
    after: dict[str, dict[HeatmapMethod, list[Values]]] = {
        scope: {method: [] for method in methods} for scope in SCOPES
    }
    for scope, ranks in SCOPES.items():
        for shuffle in range(SHUFFLES):
            answer = shuffled_model(folder, ranks, np.random.default_rng(SEED + shuffle))
            others = _interpret(answer, images)
            for method in methods:
                after[scope][method] += [
                    explain(other, method, _explained(prediction, method)).values
                    for prediction, other in zip(predictions, others, strict=True)
                ]
    return {
        method: {
            "shuffled": {
                scope: _mean_correlation(before[method] * SHUFFLES, after[scope][method])
                for scope in SCOPES
            },
            "other_image": _mean_correlation(before[method], [*maps[1:], maps[0]]),
        }
        for method, maps in before.items()
    }


def _explained(prediction: Prediction, method: HeatmapMethod) -> int | None:
    """The class to explain in a shuffled model: the one that the intact model predicted."""
    return None if method is HeatmapMethod.ATTENTION else CLASSES.index(prediction.predicted)


def shuffled_model(folder: Path, ranks: tuple[int, ...], random: np.random.Generator) -> Answer:
    """A model whose weights have lost all that they learnt but their distribution.

    The values of each variable of one of some ranks are permuted within it. Vectors stay: biases,
    and the normalisations, without which nothing finite would come out.

    Args:
        folder: Of a SavedModel.
        ranks: Of the variables to permute.
        random: Permutes.
    """
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures[SIGNATURE]
    for variable in serve.variables:
        if variable.dtype.is_floating and len(variable.shape) in ranks:
            values = variable.numpy()
            variable.assign(random.permutation(values.ravel()).reshape(values.shape))

    def answer(images: RgbImage) -> Outputs:
        # The signature holds its variables weakly: `loaded` must live as long.
        outputs = loaded.signatures[SIGNATURE](image=tf.constant(images))
        return {name: values.numpy() for name, values in outputs.items()}

    return answer


def _mean_correlation(some: list[Values], others: list[Values]) -> dict[str, Any]:
    """Spearman's, averaged over the pairs of which neither is constant; and how many are."""
    found = [
        float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
        for a, b in zip(some, others, strict=True)
        if np.ptp(a) > 0 and np.ptp(b) > 0
    ]
    return {
        "correlation": _mean(found) if found else None,
        "constant": round(1 - len(found) / len(some), 4),
    }


def _mean(values: Any) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None
