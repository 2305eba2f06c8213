"""What every section of the benchmark is given."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from app.domain.manifest import Runtime, read_manifest
from tests.bench.servers import Call, raw_call, serve_project


@dataclass(frozen=True, slots=True)
class Bench:
    """What every section needs.

    Attributes:
        models: Folder of all artifacts.
        artifacts: `<name>/<version>/` of the newest version of each model.
        jpeg: The image that is sent.
        seconds: Of a load.
        rounds: Of a comparison by turns.
        logs: Folder for the servers' logs.
        ports: Numbers of free ports.
    """

    models: Path
    artifacts: list[Path]
    jpeg: bytes
    seconds: float
    rounds: int
    logs: Path
    ports: Iterator[int]

    def default_artifact(self) -> Path:
        """Of the model that answers where none is named."""
        return max(
            self.artifacts, key=lambda f: read_manifest(f)[0].metrics.balanced_accuracy.value
        )

    def log(self, name: str) -> Path:
        """A server's log."""
        return self.logs / f"{name.replace(' ', '_').replace(',', '')}.log"

    def project(self, runtime: str, **settings: Any) -> Any:
        """The service, by context manager."""
        settings = {"models_dir": self.models, "runtime": runtime, **settings}
        return serve_project(next(self.ports), self.log(f"service {runtime}"), **settings)

    def forms(self) -> list[tuple[Path, Runtime]]:
        """Each artifact with each runtime that runs something of its own there."""
        return [
            (folder, runtime)
            for folder in self.artifacts
            for runtime in get_args(Runtime)
            if runtime != "openvino-int8" or read_manifest(folder)[0].quantized
        ]

    def runtimes(self) -> dict[Runtime, list[Path]]:
        """The artifacts that each runtime has something of its own to run of."""
        found: dict[Runtime, list[Path]] = {}
        for folder, runtime in self.forms():
            found.setdefault(runtime, []).append(folder)
        return found

    def call(self, folder: Path, *, heatmap: bool = True) -> Call:
        """A request that an artifact is to answer."""
        name = f"{folder.parent.name}@{folder.name}"
        return raw_call(self.jpeg, f"/predict?model={name}&heatmap={str(heatmap).lower()}")
