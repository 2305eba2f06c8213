"""BentoML, one worker."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from tests.bench.peers.handler import Handler


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Peer:
    """Answers files; BentoML runs it in its threads."""

    def __init__(self) -> None:
        """Load the model."""
        self.handler = Handler()

    @bentoml.api
    def predict(self, image: Annotated[Path, ContentType("image/jpeg")]) -> str:
        """Answer one file."""
        (answer,) = self.handler.answer([image.read_bytes()])
        return answer.decode()


if __name__ == "__main__":
    bentoml.serve(
        "tests.bench.peers.bentoml_peer:Peer", port=int(os.environ["BENCH_PORT"]), blocking=True
    )
