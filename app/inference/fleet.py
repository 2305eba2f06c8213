"""The models being served, each behind its line, replaced as a whole (ADR-0008)."""

import asyncio
import logging
from asyncio import gather
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import anyio
import numpy as np

from app.domain.ensemble import EnsembleManifest
from app.domain.errors import ArtifactError, DermHybridError, ModelFaultError
from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.manifest import Manifest
from app.inference.batcher import Batcher, BatchLimits, BatchReport
from app.inference.ensembles import LoadedEnsemble
from app.inference.explain import Prediction
from app.inference.models import LoadedModel
from app.inference.process import give_memory_back, run_behind
from app.inference.registry import ModelRegistry
from app.metrics import Metrics
from app.tracing import InLine, Tracing, in_batch, of_model, untraced

logger = logging.getLogger(__name__)

Load = Callable[[Mapping[str, LoadedModel]], ModelRegistry]
"""Read the models folder anew; models whose digest is known are taken over as they are."""


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

    async def self_test(self) -> None:
        """Answer the golden example between two batches; where that fails, stop answering."""
        try:
            await run_behind(self._threads, self.loaded.self_test)
        except Exception as error:  # noqa: BLE001  a model that cannot run is as bad as a wrong one
            self.fault = str(error)
            logger.error("self-test failed", extra={"reason": self.fault})  # noqa: TRY400
        else:
            self.fault = None
        self._metrics.report_self_test(self.manifest, passed=self.fault is None)

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
        with in_batch([one.spans for one in asked]):
            images = np.stack([one.image for one in asked])
            return await run_behind(self._threads, self.loaded.predict_batch, images)

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
        return self.loaded.combine(await gather(*(m.predict(image) for m in self.members)))

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


Served = ServedModel | ServedEnsemble
"""Whatever answers."""


class Fleet:
    """All served models; `reload` replaces them at one moment or not at all.

    Attributes:
        registry: What is served now.
        limits: Of each model's batches and line.
    """

    def __init__(self, load: Load, limits: BatchLimits, metrics: Metrics, tracing: Tracing) -> None:
        """Serve nothing yet.

        Args:
            load: Reads the models folder.
            limits: Of each model's batches and line.
            metrics: Where measurements go.
            tracing: Makes spans.
        """
        self.registry: ModelRegistry
        self._load, self.limits = load, limits
        self._metrics, self._tracing = metrics, tracing
        # A model call uses every core by itself.
        self._threads = anyio.CapacityLimiter(1)
        self._served: dict[str, ServedModel] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()

    async def reload(self) -> None:
        """Load, verify and warm up what the models folder holds now, then serve it.

        Models in use are answered from until their last caller is done. Where anything
        fails, all stays as it was.

        Raises:
            ArtifactError: A model must not be served; the message names the file.
        """
        async with self._reloading:
            try:
                await self._exchange()
            finally:  # of what was refused, too
                await self._give_memory_back()

    async def _exchange(self) -> None:
        known = {digest: served.loaded for digest, served in self._served.items()}
        try:
            registry = await run_behind(None, self._load, known)
        except ArtifactError as error:
            logger.error("models refused", extra={"reason": str(error)})  # noqa: TRY400
            raise
        for model in registry.models():
            if model.digest not in known:
                await self._warm_up(model)
        served = {
            model.digest: self._served.get(model.digest)
            or ServedModel(model, self.limits, self._threads, self._metrics, self._tracing)
            for model in registry.models()
        }
        retired = [old for digest, old in self._served.items() if digest not in served]
        self.registry, self._served = registry, served
        for old in retired:
            task = asyncio.create_task(self._retire(old), name=f"retire {old.manifest.name}")
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        self._metrics.announce_models(
            (
                m.manifest,
                m.digest,
                m.engine.runtime,
                "shadow" if m is registry.shadow else "serving",
            )
            for m in registry.models()
        )
        self._metrics.watch_queues(
            (line.manifest, lambda line=line: line.num_waiting)  # type: ignore[misc]
            for line in served.values()
        )
        await self.self_test()
        logger.info("models served", extra={"models": registry.names()})

    def get(self, name: str | None) -> Served:
        """The newest version of a model or the ensemble, or `name@version`; the default for None.

        Raises:
            ModelNotFoundError: None is loaded.
        """
        registry = self.registry
        model = registry.default if name is None else registry.get(name)
        if isinstance(model, LoadedEnsemble):
            return ServedEnsemble(model, [self._served[m.digest] for m in model.members])
        return self._served[model.digest]

    def shadow(self, answered_by: Served, image: RgbImage, answer: Prediction) -> None:
        """Let the shadow score an image that the default model has answered; returns at once.

        Where another image waits for a model, the shadow misses this one. An image that comes
        while the shadow is at work waits for it, one model call at most.

        Args:
            answered_by: The model.
            image: (224, 224, 3) uint8, what the model was given.
            answer: What the model made of it.
        """
        registry = self.registry
        if registry.shadow is None or answered_by.loaded is not registry.default:
            return
        shadow = self._served[registry.shadow.digest]
        if any(served.num_waiting for served in self._served.values()):
            self._metrics.miss_shadow(shadow.manifest, "busy")
            return
        with untraced():  # nobody waits for it
            task = asyncio.create_task(self._score(shadow, image, answer), name="shadow")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _score(self, shadow: ServedModel, image: RgbImage, answer: Prediction) -> None:
        with shadow.in_use():
            try:
                other = await shadow.predict(image)
            except Exception as error:  # nobody waits for this answer
                self._metrics.miss_shadow(shadow.manifest, "error")
                if not isinstance(error, DermHybridError):  # those are no defects
                    logger.exception("the shadow failed")
                return
        change = float(np.abs(other.probabilities - answer.probabilities).max())
        self._metrics.observe_shadow(
            shadow.manifest, answer.predicted.label, other.predicted.label, change
        )

    def check(self) -> None:
        """Say whether every model that is to answer may do so.

        Raises:
            ModelFaultError: One of them failed its last self-test.
        """
        for model in self.registry.models():
            if model is not self.registry.shadow:
                self._served[model.digest].check()

    async def self_test(self) -> None:
        """Let every model answer its golden example again, one after the other."""
        for served in list(self._served.values()):
            await served.self_test()

    async def close(self, grace_seconds: float) -> None:
        """Answer what is in line, for so long, then close every line."""
        async with asyncio.TaskGroup() as closing:
            for served in self._served.values():
                closing.create_task(served.close(grace_seconds))
        for task in self._background:
            task.cancel()

    async def _retire(self, old: ServedModel) -> None:
        await old.retire()
        del old  # the last reference
        await self._give_memory_back()

    async def _give_memory_back(self) -> None:
        """What reading and compiling took, and what a retired model held."""
        await run_behind(self._threads, give_memory_back)

    async def _warm_up(self, model: LoadedModel) -> None:
        """Run every batch size once: kernels are chosen at the first call of a shape."""
        for size in range(1, self.limits.max_items + 1):
            blank = np.zeros((size, MODEL_INPUT_SIZE, MODEL_INPUT_SIZE, 3), np.uint8)
            await run_behind(self._threads, model.engine.predict, blank)
