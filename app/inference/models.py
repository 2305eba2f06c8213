"""One artifact: verified, loaded, tested, ready to answer."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from app.domain.golden import Outputs, check_golden, golden_input
from app.domain.images import RgbImage
from app.domain.manifest import (
    MANIFEST_NAME,
    MODEL_CARD_NAME,
    Manifest,
    Runtime,
    read_manifest,
    verify_files,
)
from app.domain.novelty import FeatureSpace, read_feature_space
from app.domain.rules import FEATURE_SPACE_NAME
from app.inference.explain import Prediction, interpret
from app.inference.signatures import PublicKeys, require_signed

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """What runs a model.

    Attributes:
        runtime: Its name.
    """

    runtime: Runtime

    def predict(self, images: RgbImage) -> Outputs:
        """Outputs for (batch, 224, 224, 3) uint8."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified artifact, ready to answer.

    Attributes:
        manifest: What it is.
        digest: SHA-256 of `manifest.json`, which in turn fixes every other byte.
        engine: Runs it.
        directory: Where it was read from.
        golden: Its golden example, (1, 224, 224, 3) uint8.
        card: Its model card, Markdown.
        feature_space: What its training images span; None where its manifest has no rules.
    """

    manifest: Manifest
    digest: str
    engine: Engine
    directory: Path
    golden: RgbImage
    card: str
    feature_space: FeatureSpace | None = None

    @property
    def qualified_name(self) -> str:
        """`name@version`."""
        return f"{self.manifest.name}@{self.manifest.version}"

    @property
    def runtime(self) -> Runtime:
        """What runs it."""
        return self.engine.runtime

    @property
    def members(self) -> tuple["LoadedModel", ...]:
        """The models that answer: itself."""
        return (self,)

    @property
    def drawn(self) -> "LoadedModel":
        """The model that heatmaps of its answers are of: itself."""
        return self

    def self_test(self) -> None:
        """Answer the golden example again; blocks the calling thread.

        Raises:
            GoldenExampleError: The answer is not the manifest's any more.
        """
        outputs = self.engine.predict(self.golden)
        check_golden(self.directory, self.manifest, outputs, self.engine.runtime)

    def predict(self, image: RgbImage) -> Prediction:
        """Answer one model input, (224, 224, 3) uint8; blocks the calling thread."""
        return self.predict_batch(image[None])[0]

    def predict_batch(self, images: RgbImage) -> list[Prediction]:
        """Answer (batch, 224, 224, 3) uint8, one by one; blocks the calling thread."""
        outputs = self.engine.predict(images)
        rows = range(len(outputs["probabilities"]))
        return [interpret(outputs, row, self.feature_space) for row in rows]


def load_model(
    directory: Path,
    make_engine: Callable[[Path], Engine],
    known: Mapping[str, LoadedModel] = MappingProxyType({}),
    keys: PublicKeys | None = None,
) -> LoadedModel:
    """Verify, load and test one artifact, or verify it and take over the known one.

    Args:
        directory: `<name>/<version>/`.
        make_engine: Loads its SavedModel.
        known: Models by digest that are not loaded again.
        keys: Whose signatures count; None where none is needed.

    Raises:
        ArtifactError: It must not be served; the message names the file.
    """
    signed_digest = None if keys is None else keys.check(directory / MANIFEST_NAME)
    manifest, digest = read_manifest(directory)
    require_signed(directory / MANIFEST_NAME, digest, signed_digest)
    verify_files(directory, manifest)
    if digest in known:
        return known[digest]
    golden = golden_input(directory, manifest)
    card = (directory / MODEL_CARD_NAME).read_text(encoding="utf-8", errors="replace")
    rules = manifest.decision
    space = (
        read_feature_space(directory / FEATURE_SPACE_NAME, rules.novelty.num_components)
        if rules and rules.novelty.num_components
        else None
    )
    engine = make_engine(directory)
    model = LoadedModel(manifest, digest, engine, directory, golden, card, space)
    model.self_test()
    logger.info(
        "model loaded",
        extra={
            "model": manifest.name,
            "version": manifest.version,
            "digest": digest,
            "runtime": model.engine.runtime,
        },
    )
    return model
