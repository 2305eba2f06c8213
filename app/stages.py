"""How long each stage of a prediction takes: a histogram over all, a span in each trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, time_ns

from app.metrics import Metrics, Named
from app.tracing import Tracing, of_model


@dataclass(frozen=True, slots=True)
class Asked:
    """When something was asked for, by both clocks.

    Attributes:
        seconds: Of the clock that durations are measured with.
        nanoseconds: Of Unix time.
    """

    seconds: float
    nanoseconds: int

    @classmethod
    def now(cls) -> "Asked":
        """This moment."""
        return cls(perf_counter(), time_ns())


class Stages:
    """Measures stages, in whatever thread they run."""

    def __init__(self, metrics: Metrics, tracing: Tracing) -> None:
        """Measure.

        Args:
            metrics: Gets the durations.
            tracing: Gets the spans.
        """
        self._metrics, self._tracing = metrics, tracing

    @contextmanager
    def time(self, stage: str, model: Named) -> Iterator[None]:
        """Measure a stage."""
        attributes = of_model(model.name, model.version)
        with self._tracing.part(stage, attributes), self._metrics.time_stage(stage, model):
            yield

    def waited(self, model: Named, asked: Asked) -> None:
        """Record that something waited until now for a thread, as the stage `queue`."""
        with self._tracing.part("queue", of_model(model.name, model.version), asked.nanoseconds):
            self._metrics.observe_stage("queue", model, perf_counter() - asked.seconds)
