"""The models being served, each behind its line, replaced as a whole (ADR-0008)."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import anyio
import numpy as np

from app.domain.errors import ArtifactError, DermHybridError
from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.inference.batcher import BatchLimits
from app.inference.ensembles import LoadedEnsemble
from app.inference.explain import Prediction
from app.inference.models import LoadedModel
from app.inference.process import give_memory_back, run_behind
from app.inference.registry import Loaded, ModelRegistry
from app.inference.served import Served, ServedEnsemble, ServedModel
from app.metrics import Metrics
from app.tracing import Tracing, untraced

logger = logging.getLogger(__name__)

Load = Callable[[Mapping[str, LoadedModel]], ModelRegistry]
"""Read the models folder anew; models whose digest is known are taken over as they are."""


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
            except ArtifactError as error:
                logger.error("models refused", extra={"reason": str(error)})  # noqa: TRY400
                raise
            except Exception as error:  # whoever asked for it may have left
                logger.exception("reload failed", extra={"reason": type(error).__name__})
                raise
            finally:  # of what was refused, too
                await self._give_memory_back()

    async def _exchange(self) -> None:
        known = {digest: served.loaded for digest, served in self._served.items()}
        registry = await run_behind(None, self._load, known)
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

    def serves(self, model: Loaded) -> bool:
        """Whether a model or the ensemble answers still: a reload may have taken it away."""
        return any(model.digest == one.digest for one in self.registry.all())

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
        """Let every model answer its golden example again, one after the other.

        What leaves meanwhile is passed over: nobody would ever renew what was published of it.
        """
        for digest, served in list(self._served.items()):
            if self._served.get(digest) is not served:
                continue
            passed = await served.self_test()
            if self._served.get(digest) is served:
                self._metrics.report_self_test(served.manifest, passed=passed)

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
