"""Check HAM10000, split it, and write it as one array; knows nothing of TensorFlow.

```
metadata CSV + image folder(s) -> every row checked -> split of a protocol -> DIR/
    dataset.json    protocol, seed, fingerprint, counts
    split.csv       image_id, lesion_id, dx, age, sex, localization, part
    images.npy      (num_images, 224, 224, 3) uint8, rows as in split.csv
```

The folder appears whole or not at all.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from app.domain.errors import ImageRejectedError
from app.domain.images import MODEL_INPUT_SIZE, ImageLimits, RgbImage, decode_image, to_model_input
from app.domain.labels import CLASS_INDEX, LABELS
from training.config import Protocol

METADATA_COLUMNS: Final = ("lesion_id", "image_id", "dx", "age", "sex", "localization")
IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
AGE_BANDS: Final = (0, 40, 60, 200)
AGE_BAND_NAMES: Final = ("under 40", "40 to 59", "60 and over")
_READ_BATCH: Final = 256
_TRAINING_LIMITS: Final = ImageLimits(min_side_pixels=32)


class Part(StrEnum):
    """What an image may be used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class DatasetError(Exception):
    """The data cannot be used; `problems` lists every row that failed the same check.

    Attributes:
        problems: One sentence for each defect.
    """

    def __init__(self, summary: str, problems: list[str]) -> None:
        """Keep all problems, so that they can be mended together."""
        super().__init__(summary)
        self.problems = problems


@dataclass(frozen=True)
class PreparedData:
    """A dataset that `prepare` wrote.

    Attributes:
        directory: Where it lies.
        protocol: How it was split.
        seed: Of the split.
        fingerprint: SHA-256 over all image files, lesions and labels, in hexadecimal.
        split_fingerprint: SHA-256 over which image is in which part.
        table: A row an image: image_id, lesion_id, dx, age, sex, localization, part.
        images: (num_images, 224, 224, 3) uint8, read from disk when touched.
    """

    directory: Path
    protocol: Protocol
    seed: int
    fingerprint: str
    split_fingerprint: str
    table: pd.DataFrame
    images: RgbImage

    def rows(self, part: Part) -> npt.NDArray[np.int64]:
        """Row numbers of a part, ascending: (num_images_of_part,) int64."""
        return np.flatnonzero(self.table["part"].to_numpy() == part.value).astype(np.int64)

    def labels(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Class indices of rows: (num_rows,) int64."""
        return np.asarray(self.table["dx"].map(CLASS_INDEX), np.int64)[rows]

    def lesions(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        """Lesion identifiers of rows: (num_rows,)."""
        return np.asarray(self.table["lesion_id"], np.object_)[rows]

    def attributes(self, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.object_]]:
        """What is known of the patient and the site, (num_rows,) each; ages in bands."""
        table = self.table.iloc[rows]
        age = pd.cut(table["age"], AGE_BANDS, right=False, labels=AGE_BAND_NAMES)
        columns = {
            "age": age.astype(object).where(age.notna(), "unknown"),
            "sex": table["sex"].fillna("unknown"),
            "localization": table["localization"].fillna("unknown"),
        }
        return {name: np.asarray(values, np.object_) for name, values in columns.items()}


def load_prepared(directory: Path) -> PreparedData:
    """Open a folder that `prepare` wrote.

    Raises:
        DatasetError: The folder is none.
    """
    try:
        facts = json.loads((directory / "dataset.json").read_text(encoding="utf-8"))
        table = pd.read_csv(directory / "split.csv", dtype={"image_id": str, "lesion_id": str})
        images = np.load(directory / "images.npy", mmap_mode="r")
        data = PreparedData(
            directory,
            Protocol(facts["protocol"]),
            int(facts["seed"]),
            str(facts["fingerprint"]),
            _split_fingerprint(table),
            table,
            images,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{directory} is no prepared dataset ({type(error).__name__}: {error}). Run "
            "`python -m training prepare`.",
            [],
        ) from error
    expected = (len(table), MODEL_INPUT_SIZE, MODEL_INPUT_SIZE, 3)
    if images.shape != expected or images.dtype != np.uint8:
        raise DatasetError(
            f"{directory}: images.npy has {images.dtype} of {images.shape}; split.csv expects "
            f"uint8 of {expected}.",
            [],
        )
    return data


def prepare(
    images: list[Path],
    metadata: Path,
    output: Path,
    protocol: Protocol,
    seed: int,
    report_progress: Callable[[int, int], None],
) -> PreparedData:
    """Check every row, split, decode everything once, and write the result.

    Args:
        images: Folders searched for the images, sub-folders included.
        metadata: `HAM10000_metadata.csv`, as the archive publishes it.
        output: Folder to make; it must not exist.
        protocol: How to split.
        seed: Of the split.
        report_progress: Called with (images done, images in all).

    Returns:
        The dataset, opened.

    Raises:
        DatasetError: A row is wrong (`problems` lists all of them) or `output` exists.
    """
    if output.exists():
        raise DatasetError(f"{output} exists already; name a new folder or delete it.", [])
    table = _read_metadata(metadata)
    files = _find_images(images, table)
    table["part"] = split(table, protocol, seed)

    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        fingerprint = _write_images(table, files, scratch / "images.npy", report_progress)
        table.to_csv(scratch / "split.csv", index=False)
        facts = {
            "protocol": protocol.value,
            "seed": seed,
            "fingerprint": fingerprint,
            "num_images": len(table),
            "num_lesions": int(table["lesion_id"].nunique()),
            "counts": count_by_part(table),
        }
        text = json.dumps(facts, indent=2) + "\n"
        (scratch / "dataset.json").write_text(text, encoding="utf-8")
        scratch.chmod(0o755)
        scratch.rename(output)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return load_prepared(output)


def _split_fingerprint(table: pd.DataFrame) -> str:
    lines = table["image_id"] + "\t" + table["part"] + "\n"
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def count_by_part(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images of each class in each part."""
    counts = table.groupby(["part", "dx"]).size()
    return {
        part.value: {label: int(counts.get((part.value, label), 0)) for label in LABELS}
        for part in Part
    }


def split(table: pd.DataFrame, protocol: Protocol, seed: int) -> npt.NDArray[np.str_]:
    """Give each image its part, 64/16/20.

    Args:
        table: A row an image, with `dx` and `lesion_id`.
        protocol: Stratified by class, and by lesion too or not.
        seed: Of the shuffle.

    Returns:
        (num_images,) of `Part` values.

    Raises:
        DatasetError: A class has too few images or lesions for three parts.
    """
    label = table["dx"].to_numpy()
    everything = np.arange(len(table))
    try:
        if protocol is Protocol.PAPER:
            rest, test = train_test_split(
                everything, test_size=0.20, stratify=label, random_state=seed
            )
            train, validation = train_test_split(
                rest, test_size=0.20, stratify=label[rest], random_state=seed
            )
        else:
            lesion = table["lesion_id"].to_numpy()
            rest, test = _one_fold_of_five(everything, label, lesion, seed)
            train, validation = _one_fold_of_five(rest, label, lesion, seed)
    except ValueError as error:
        raise DatasetError(f"The data cannot be split by protocol {protocol}: {error}", []) from (
            error
        )
    part = np.empty(len(table), dtype="<U10")
    part[train], part[validation], part[test] = Part.TRAIN, Part.VALIDATION, Part.TEST
    return part


def _one_fold_of_five(
    rows: npt.NDArray[np.int64],
    label: npt.NDArray[np.object_],
    lesion: npt.NDArray[np.object_],
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Divide rows 80/20 with no lesion on both sides."""
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
    keep, held_out = next(folds.split(rows, label[rows], lesion[rows]))
    return rows[keep], rows[held_out]


def _read_metadata(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"image_id": str, "lesion_id": str})
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as CSV: {error}", []) from error
    missing = [column for column in METADATA_COLUMNS if column not in table.columns]
    if missing:
        raise DatasetError(
            f"{path} lacks the columns {missing}; expected {list(METADATA_COLUMNS)}.", []
        )
    problems = []
    for line, row in enumerate(table.itertuples(index=False), start=2):
        if not isinstance(row.image_id, str) or not isinstance(row.lesion_id, str):
            problems.append(f"line {line}: image_id or lesion_id is empty")
        if row.dx not in CLASS_INDEX:
            problems.append(f"line {line}: unknown dx {row.dx!r}; expected one of {LABELS}")
    ages = pd.to_numeric(table["age"], errors="coerce")
    problems += [
        f"line {row + 2}: age {table['age'][row]!r}; expected years, 0 to 120, or nothing"
        for row in np.flatnonzero(table["age"].notna() & ~ages.between(0, 120))
    ]
    problems += [
        f"image_id {image_id} stands in {count} rows; expected 1"
        for image_id, count in table["image_id"].value_counts().items()
        if count > 1
    ]
    if problems:
        raise DatasetError(f"{path}: {len(problems)} problems", problems)
    ordered = table.sort_values("image_id", ignore_index=True)
    return ordered[list(METADATA_COLUMNS)]


def _find_images(folders: list[Path], table: pd.DataFrame) -> list[Path]:
    """The file of each row, in the table's order."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(path.stem, []).append(path)
    problems, files = [], []
    for image_id in table["image_id"]:
        paths = found.get(image_id, [])
        if len(paths) == 1:
            files.append(paths[0])
        elif not paths:
            problems.append(f"{image_id}: no image file")
        else:
            problems.append(f"{image_id}: {len(paths)} files, {', '.join(map(str, paths))}")
    if problems:
        names = ", ".join(map(str, folders))
        raise DatasetError(f"{names}: {len(problems)} problems", problems)
    return files


def _write_images(
    table: pd.DataFrame,
    files: list[Path],
    output: Path,
    report_progress: Callable[[int, int], None],
) -> str:
    """Decode every file into one array; return the data's fingerprint."""
    shape = (len(files), MODEL_INPUT_SIZE, MODEL_INPUT_SIZE, 3)
    array = np.lib.format.open_memmap(output, mode="w+", dtype=np.uint8, shape=shape)
    digest = hashlib.sha256()
    problems: list[str] = []
    rows = cast(
        Iterator[tuple[str, str, str]],
        zip(table["image_id"], table["lesion_id"], table["dx"], strict=True),
    )
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _READ_BATCH):
            batch = files[start : start + _READ_BATCH]
            for row, outcome in enumerate(pool.map(_read_image, batch), start=start):
                image_id, lesion_id, dx = next(rows)
                file_digest, pixels = outcome
                if isinstance(pixels, str):
                    problems.append(f"{files[row]}: {pixels}")
                else:
                    array[row] = pixels
                digest.update(f"{image_id}\t{lesion_id}\t{dx}\t{file_digest}\n".encode())
            report_progress(min(start + _READ_BATCH, len(files)), len(files))
    array.flush()
    if problems:
        raise DatasetError(f"{len(problems)} images cannot be read", problems)
    return digest.hexdigest()


def _read_image(path: Path) -> tuple[str, RgbImage | str]:
    """SHA-256 of a file, and its pixels or why there are none."""
    try:
        data = path.read_bytes()
        pixels = to_model_input(decode_image(data, _TRAINING_LIMITS).pixels)
    except (ImageRejectedError, OSError) as error:
        return "", str(error)
    return hashlib.sha256(data).hexdigest(), pixels
