"""LitServe with its dynamic batching."""

import os

import litserve
from fastapi import Request, Response

from tests.bench.peers.handler import MAX_BATCH_SIZE, Handler


class Api(litserve.LitAPI):
    """Decoding, model and overlay in its one worker."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.handler = Handler()

    # LitServe reads the annotation: for `Request` it gives the form.
    def decode_request(self, request: Request) -> bytes:
        """The file in the form."""
        data: bytes = request["image"].file.read()
        return data

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Leave a batch a list."""
        return list(inputs)

    def predict(self, batch: list[bytes]) -> list[bytes]:
        """Answer a batch."""
        return self.handler.answer(batch)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """A batch is a list."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """JSON it is already."""
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        log_level="warning",
        generate_client_file=False,
    )
