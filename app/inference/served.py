"""What answers: a model behind its line, or an ensemble of such (ADR-0008)."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import anyio
import numpy as np

from app.domain.ensemble import EnsembleManifest
from app.domain.errors import ModelFaultError, is_exhaustion
from app.domain.images import RgbImage
from app.domain.manifest import Manifest
from app.inference.batcher import Batcher, BatchLimits, BatchReport
from app.inference.ensembles import LoadedEnsemble
from app.inference.explain import Prediction
from app.inference.models import LoadedModel
from app.inference.process import run_behind
from app.metrics import Metrics
from app.tracing import InLine, Tracing, in_batch, of_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """An image in line, (224, 224, 3) uint8, and the spans of its request."""

    image: RgbImage
    spans: InLine


class ServedModel:
    """A loaded model and the line before it.

    Attributes:
        loaded: What answers.
        fault: Why it must not answer at present; None where it may.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        limits: BatchLimits,
        threads: anyio.CapacityLimiter,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        """Open the line; needs a running event loop.

        Args:
            loaded: A verified model.
            limits: Of its batches and its line.
            threads: How many model calls run at once, shared by all models.
            metrics: Where measurements go.
            tracing: Makes spans.
        """
        self.loaded = loaded
        self.fault: str | None = None
        self._threads, self._metrics, self._tracing = threads, metrics, tracing
        self._batcher: Batcher[_Asked, Prediction] = Batcher(self._answer, limits, self._observe)
        self._num_users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def manifest(self) -> Manifest:
        """What the model is."""
        return self.loaded.manifest

    @property
    def num_waiting(self) -> int:
        """Images in line."""
        return self._batcher.num_waiting

    async def predict(self, image: RgbImage) -> Prediction:
        """Answer one model input, (224, 224, 3) uint8.

        Raises:
            ModelFaultError: The model failed its last self-test, or gave no finite answer.
            ServiceBusyError: The line is full.
            ServiceStoppingError: The line was closed before the answer came.
        """
        self.check()
        with self._tracing.in_line(of_model(self.manifest.name, self.manifest.version)) as spans:
            return await self._batcher.submit(_Asked(image, spans))

    def check(self) -> None:
        """Say whether the model may answer.

        Raises:
            ModelFaultError: It failed its last self-test.
        """
        if self.fault is not None:
            raise ModelFaultError(
                f"{self.manifest.name}@{self.manifest.version} failed its self-test and does not "
                "answer until it passes again. Use another model, or repeat the request later."
            )

    async def self_test(self) -> bool | None:
        """Answer the golden example between two batches; where that fails, stop answering.

        Returns:
            Whether it passed; None where the machine had no means for a test.
        """
        try:
            await run_behind(self._threads, self.loaded.self_test)
        except Exception as error:  # noqa: BLE001  a model that cannot run is as bad as a wrong one
            if is_exhaustion(error):  # the machine's moment, which tells nothing of the model
                logger.error("no self-test", extra={"reason": type(error).__name__})  # noqa: TRY400
                return None
            self.fault = str(error)
            logger.error("self-test failed", extra={"reason": self.fault})  # noqa: TRY400
        else:
            self.fault = None
        return self.fault is None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the line open, even if another model takes this one's place meanwhile."""
        self._num_users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._num_users -= 1
            if not self._num_users:
                self._unused.set()

    async def retire(self) -> None:
        """Close the line as soon as nobody uses the model."""
        await self._unused.wait()
        await self._batcher.close(0.0)

    async def close(self, grace_seconds: float) -> None:
        """Answer what is in line, for so long, then close it."""
        await self._batcher.close(grace_seconds)

    async def _answer(self, asked: list[_Asked]) -> list[Prediction]:
        self.check()  # those in line, too, came before the self-test
        with in_batch([one.spans for one in asked]):
            images = np.stack([one.image for one in asked])
            answers = await run_behind(self._threads, self.loaded.predict_batch, images)
        self.check()
        return answers

    def _observe(self, report: BatchReport) -> None:
        self._metrics.observe_batch(self.manifest, len(report.waited))
        for seconds in report.waited:
            self._metrics.observe_stage("queue", self.manifest, seconds)
        self._metrics.observe_stage("inference", self.manifest, report.seconds)


class ServedEnsemble:
    """An ensemble; its images stand in the lines of its members.

    Attributes:
        loaded: What combines their answers.
        members: In the order of `loaded.members`.
    """

    def __init__(self, loaded: LoadedEnsemble, members: Sequence[ServedModel]) -> None:
        """Answer with some served models."""
        self.loaded, self.members = loaded, tuple(members)

    @property
    def manifest(self) -> EnsembleManifest:
        """What the ensemble is."""
        return self.loaded.manifest

    async def predict(self, image: RgbImage) -> Prediction:
        """Answer one model input, (224, 224, 3) uint8.

        Raises:
            ModelFaultError: A member failed its last self-test, or gave no finite answer.
            ServiceBusyError: A member's line is full.
            ServiceStoppingError: A member's line was closed before the answer came.
        """
        self.check()
        return self.loaded.combine(await self._ask(image))

    def check(self) -> None:
        """Say whether every member may answer.

        Raises:
            ModelFaultError: One failed its last self-test.
        """
        for member in self.members:
            member.check()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the members' lines open, even if the models are replaced meanwhile."""
        with ExitStack() as used:
            for member in self.members:
                used.enter_context(member.in_use())
            yield

    async def _ask(self, image: RgbImage) -> list[Prediction]:
        """Every member's answer; where one gives none, the image leaves all lines."""
        asked = [asyncio.create_task(member.predict(image)) for member in self.members]
        try:
            return await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)


Served = ServedModel | ServedEnsemble
"""Whatever answers."""
