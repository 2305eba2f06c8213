"""Measure an artifact or an ensemble on images from elsewhere, read as an upload is read.

```
--labels CSV, a row an image, in one of two forms:
    image, dx                                      a label of HAM10000
    image, MEL, NV, BCC, AKIEC, BKL, DF, VASC      ISIC 2018 ground truth, one of them 1
    lesion_id                                      optional; groups the intervals' resamples
--images DIR with <image>.jpg, .png or another format that the service takes
OUTPUT/
    metrics.json       app.domain.manifest.Metrics
    predictions.csv    image, dx, and a probability a class
    report.md
```
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.domain.errors import ImageRejectedError
from app.domain.images import ImageLimits, RgbImage
from app.domain.labels import CLASS_INDEX, LABELS
from app.domain.measurements import Metrics
from app.domain.notice import RESEARCH_USE_NOTICE
from app.inference.files import read_file
from training.metrics import measure, measure_operating_points
from training.prepare import IMAGE_SUFFIXES, DatasetError
from training.report import metrics_lines, reliability_lines
from training.run_folder import write_json
from training.served import load_classifier, predict_all

MAX_LABELS_BYTES: Final = 64 << 20
MAX_LABELS: Final = 50_000
"""Intervals by a thousand resamples take some 64 kB of memory an image."""
_LIMITS: Final = ImageLimits()
_SEED: Final = 20180814
_SHOWN: Final = 20
_NO_LESIONS: Final = (
    "images, for the labels have no column `lesion_id`: too narrow where images share a lesion"
)
_ISIC_NAME: Final = re.compile(r"ISIC_(\d{7})(?:\.\w+)?")
_HAM10000: Final = range(24306, 34321)
"""Numbers in the ISIC Archive of HAM10000's 10,015 images, the training images of ISIC 2018."""


def evaluate_external(
    classifier_path: Path,
    images: Path,
    labels: Path,
    output: Path,
    report_progress: Callable[[int, int], None],
) -> Metrics:
    """Measure on labelled images.

    Args:
        classifier_path: `models/NAME/VERSION` or `models/ensemble.json`.
        images: Folder of the images; sub-folders are not searched.
        labels: The CSV.
        output: Folder to make; it must not exist.
        report_progress: Called with (images done, images in all).

    Raises:
        DatasetError: A row or an image cannot be used; `problems` lists them.
        ArtifactError: The classifier must not be served.
    """
    if output.exists():
        raise DatasetError(f"{output} exists already; name a new folder or delete it.", [])
    table = read_labels(labels)
    files = _find(images, table["image"].tolist())
    classifier = load_classifier(classifier_path)
    probabilities = predict_all(classifier.predict, _pixels(files), len(files), report_progress)
    truth = np.asarray(table["dx"].map(CLASS_INDEX), np.int64)
    groups = np.asarray(table["lesion_id"], np.object_)
    points = classifier.calibration.operating_points if classifier.calibration else []
    metrics = measure("external", truth, probabilities, groups, seed=_SEED).model_copy(
        update={
            "operating_points": measure_operating_points(
                points, truth, probabilities, groups, seed=_SEED
            )
        }
    )
    output.mkdir(parents=True)
    write_json(output / "metrics.json", metrics.model_dump(mode="json"))
    _write_predictions(table, probabilities, output / "predictions.csv")
    lines = [
        f"# {classifier.title} on images from elsewhere",
        "",
        f"{metrics.num_images} images. {RESEARCH_USE_NOTICE}",
        "",
        "Every image is scored, also what the service would reject or refer.",
        "",
        *_known_images(table["image"].tolist()),
        *metrics_lines(metrics, "lesions" if has_lesions(labels) else _NO_LESIONS),
        "",
        *reliability_lines(metrics),
        "",
    ]
    (output / "report.md").write_text("\n".join(lines), encoding="utf-8")
    return metrics


def _known_images(names: list[str]) -> list[str]:
    """A warning where images are HAM10000's own, most of which the models learnt from."""
    known = [name for name in names if is_from_ham10000(name)]
    if not known:
        return []
    return [
        f"**{len(known)} of these images are HAM10000's own ({known[0]}, ...), by their names. "
        "The models learnt from most of them, and their thresholds were chosen on others: these "
        "figures do not tell how well anything is answered elsewhere.**",
        "",
    ]


def is_from_ham10000(name: str) -> bool:
    """Whether a file's name, with or without its suffix, is that of an image of HAM10000."""
    found = _ISIC_NAME.fullmatch(name)
    return found is not None and int(found[1]) in _HAM10000


def has_lesions(labels: Path) -> bool:
    """Whether a CSV of labels says which images are of one lesion."""
    return "lesion_id" in pd.read_csv(labels, nrows=0).columns


def read_labels(path: Path) -> pd.DataFrame:
    """Read a CSV of labels.

    Returns:
        A row an image: image, dx, lesion_id (the image's own name where there is none).

    Raises:
        DatasetError: It cannot be read, or a row is of no known class; `problems` lists them.
    """
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            raise DatasetError(f"{path} is larger than {MAX_LABELS_BYTES:,} bytes.", [])
        table = pd.read_csv(path, dtype={"image": str, "lesion_id": str})
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as CSV: {error}", []) from error
    names = {label.upper(): label for label in LABELS}
    if "image" in table.columns and "dx" in table.columns:
        table["dx"] = table["dx"].astype(str).str.strip().str.lower()
    elif {"image", *names} <= set(table.columns):
        one_hot = table[list(names)].apply(pd.to_numeric, errors="coerce").to_numpy()
        known = np.isin(one_hot, (0, 1)).all(axis=1) & (one_hot.sum(axis=1) == 1)
        answers = np.array([*names.values()], object)[one_hot.argmax(axis=1)]
        table["dx"] = np.where(known, answers, "none of the seven")
    else:
        raise DatasetError(
            f"{path} has columns {list(table.columns)}; expected `image` and `dx`, or `image` "
            f"and one column a class: {', '.join(names)}.",
            [],
        )
    if len(table) > MAX_LABELS:
        raise DatasetError(f"{path} has {len(table):,} rows; at most {MAX_LABELS:,} fit.", [])
    problems = [
        f"row {row}: image {image!r} has dx {dx!r}; expected one of {', '.join(LABELS)}"
        for row, (image, dx) in enumerate(zip(table["image"], table["dx"], strict=True), start=2)
        if dx not in CLASS_INDEX
    ]
    problems += [
        f"row {row}: {image!r} is no name of an image"
        for row, image in enumerate(table["image"], start=2)
        if not isinstance(image, str) or Path(image).name != image
    ]
    problems += [
        f"row {row}: image {table['image'][row - 2]!r} is there twice"
        for row in np.flatnonzero(table["image"].duplicated()) + 2
    ]
    if problems or table.empty:
        raise DatasetError(f"{path}: {len(problems)} of {len(table)} rows are wrong.", problems)
    lesions = table["lesion_id"] if "lesion_id" in table.columns else table["image"]
    return pd.DataFrame(
        {"image": table["image"], "dx": table["dx"], "lesion_id": lesions.fillna(table["image"])}
    )


def _find(folder: Path, names: list[str]) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder.", [])
    present: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            for name in {path.name, path.stem}:
                present.setdefault(name, []).append(path)
    found = [present.get(name, []) for name in names]
    times = Counter(paths[0] for paths in found if len(paths) == 1)
    problems = [
        f"{name}: no file of that name"
        if not paths
        else f"{name}: {' and '.join(path.name for path in paths)}; give the name with its suffix"
        if len(paths) > 1
        else f"{name}: {paths[0].name} is there in another row, too"
        for name, paths in zip(names, found, strict=True)
        if len(paths) != 1 or times[paths[0]] > 1
    ]
    if problems:
        raise DatasetError(
            f"{folder}: {len(problems)} of {len(names)} images cannot be told.", problems[:_SHOWN]
        )
    return [path for (path,) in found]


def _pixels(files: list[Path]) -> Iterator[RgbImage]:
    """Model inputs; behind the first file that is none it only looks for more such."""
    problems = []
    for file in files:
        try:
            pixels = read_file(file, _LIMITS).model_input
        except (OSError, ImageRejectedError) as error:
            problems.append(f"{file}: {error}")
            continue
        if not problems:
            yield pixels
    if problems:
        raise DatasetError(
            f"{len(problems)} of {len(files)} images cannot be used.", problems[:_SHOWN]
        )


def _write_predictions(
    table: pd.DataFrame, probabilities: npt.NDArray[np.float32], path: Path
) -> None:
    columns = {label: probabilities[:, index].round(6) for label, index in CLASS_INDEX.items()}
    table[["image", "dx"]].assign(**columns).to_csv(path, index=False)
