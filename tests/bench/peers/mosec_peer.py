"""mosec with a stage for decoding, and dynamic batching before the model."""

import os

from mosec import Server, Worker

from app.domain.uploads import Upload
from tests.bench.peers.handler import MAX_BATCH_SIZE, Handler, decode, render


class Decode(Worker):
    """Bytes to pictures."""

    def deserialize(self, data: bytes) -> bytes:
        """The body as it is."""
        return data

    def forward(self, data: bytes) -> Upload:
        """Decode one file."""
        return decode(data)


class Answer(Worker):
    """Model and overlay."""

    def __init__(self) -> None:
        """Load the model."""
        super().__init__()
        self.handler = Handler()
        self.resp_mime_type = "application/json"

    def forward(self, images: list[Upload]) -> list[bytes]:
        """Answer a batch."""
        return [render(*pair) for pair in zip(images, self.handler.predict(images), strict=True)]

    def serialize(self, data: bytes) -> bytes:
        """JSON it is already."""
        return data


if __name__ == "__main__":
    server = Server()
    environment = {name: os.environ[name] for name in ("BENCH_MODEL", "PYTHONPATH")}
    server.append_worker(Decode, num=1, env=[environment])
    server.append_worker(
        Answer, num=1, max_batch_size=MAX_BATCH_SIZE, max_wait_time=1, timeout=60, env=[environment]
    )
    server.run()
