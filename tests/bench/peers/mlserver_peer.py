"""MLServer with a custom runtime, in its own process."""

import asyncio
import base64
import os

from anyio import to_thread
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from tests.bench.peers.handler import Handler


class Peer(MLModel):
    """Takes a JPEG file in base64."""

    async def load(self) -> bool:
        """Load the model."""
        self.handler = Handler()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one file in a thread."""
        data = base64.b64decode(payload.inputs[0].data[0])
        (answer,) = await to_thread.run_sync(self.handler.answer, [data])
        output = ResponseOutput(name="answer", shape=[1], datatype="BYTES", data=[answer.decode()])
        return InferenceResponse(model_name="peer", outputs=[output])


async def main() -> None:
    """Serve until told to stop."""
    port = int(os.environ["BENCH_PORT"])
    server = MLServer(
        Settings(
            host="127.0.0.1",
            http_port=port,
            grpc_port=port + 100,
            metrics_endpoint=None,
            parallel_workers=0,
        )
    )
    await server.start([ModelSettings(name="peer", implementation=Peer)])


if __name__ == "__main__":
    asyncio.run(main())
