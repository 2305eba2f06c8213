"""The parts of a prediction without a server: what a request cannot cost less than.

As a program, `python -m tests.bench.bare FOLDER JPEG`, an artifact in a process of its own: it
answers once for each line that it reads, and writes how many seconds that took.
"""

import base64
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.domain.heatmaps import draw_overlay, encode_png
from app.domain.images import ImageLimits
from app.domain.uploads import read_upload
from app.inference.explain import explain, interpret
from app.inference.models import Engine
from app.inference.process import prepare_process
from app.inference.runtimes import engine_maker

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


def main() -> None:
    """Answer by and by."""
    prepare_process()
    engine, jpeg = engine_maker("openvino")(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes()
    for _ in sys.stdin:
        started = time.perf_counter()
        answer(engine, jpeg, Stopwatch())
        print(time.perf_counter() - started, flush=True)  # noqa: T201  its answer


if __name__ == "__main__":
    main()
