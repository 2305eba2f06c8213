"""Classify image files without a server: the next are decoded while the model answers."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from app.domain.errors import DermHybridError, ImageTooManyBytesError
from app.domain.images import ImageLimits
from app.domain.uploads import MAX_PICTURE_SIDE, Upload, read_upload
from app.inference.explain import Prediction
from app.inference.registry import Loaded

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".webp"}
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A file that was answered."""

    path: Path
    upload: Upload
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not, and why."""

    path: Path
    error: DermHybridError | OSError


def expand(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, and in place of each folder its images, by name.

    Raises:
        OSError: A folder cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            files.append(path)
    return files


def read_bytes(path: Path, limits: ImageLimits) -> bytes:
    """Read a file, and no more of it than an upload may have.

    Raises:
        OSError: It cannot be read.
        ImageTooManyBytesError: It has more.
    """
    with path.open("rb") as file:
        data = file.read(limits.max_bytes + 1)
        size = max(len(data), os.fstat(file.fileno()).st_size)
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytesError(
            f"The file has {size:,} bytes; at most {limits.max_bytes:,} are accepted. Send a "
            "smaller or more strongly compressed one."
        )
    return data


def read_file(path: Path, limits: ImageLimits, max_picture_side: int = MAX_PICTURE_SIDE) -> Upload:
    """Read an image file.

    Raises:
        OSError: It cannot be read.
        ImageRejectedError: As `read_upload`.
    """
    return read_upload(read_bytes(path, limits), limits, max_picture_side)


def classify(
    paths: Iterable[Path],
    model: Loaded,
    limits: ImageLimits,
    max_picture_side: int,
    batch_size: int,
    num_workers: int,
) -> Iterator[Answered | Refused]:
    """Answer files in their order; one that cannot be answered leaves the others alone.

    Args:
        paths: Any number of them; no more than two batches are in memory at once.
        model: What answers.
        limits: Bounds of each file.
        max_picture_side: Longest side of `Upload.picture`.
        batch_size: Images that the model is given at once.
        num_workers: Threads that decode.

    Yields:
        One outcome for each path.
    """

    def read(path: Path) -> Upload | DermHybridError | OSError:
        try:
            return read_file(path, limits, max_picture_side)
        except (DermHybridError, OSError) as error:
            return error

    remaining = iter(paths)
    reading: deque[tuple[Path, Future[Upload | DermHybridError | OSError]]] = deque()
    with ThreadPoolExecutor(num_workers) as threads:
        while True:
            for path in islice(remaining, 2 * batch_size - len(reading)):
                reading.append((path, threads.submit(read, path)))
            if not reading:
                return
            batch = [reading.popleft() for _ in range(min(batch_size, len(reading)))]
            yield from _answer(model, [(path, future.result()) for path, future in batch])


def _answer(
    model: Loaded, batch: list[tuple[Path, Upload | DermHybridError | OSError]]
) -> list[Answered | Refused]:
    uploads = [upload for _, upload in batch if isinstance(upload, Upload)]
    try:
        answers = iter(
            model.predict_batch(np.stack([upload.model_input for upload in uploads]))
            if uploads
            else []
        )
    except DermHybridError as error:
        if len(batch) == 1:
            return [Refused(batch[0][0], error)]
        return [outcome for one in batch for outcome in _answer(model, [one])]
    return [
        Answered(path, upload, next(answers))
        if isinstance(upload, Upload)
        else Refused(path, upload)
        for path, upload in batch
    ]
