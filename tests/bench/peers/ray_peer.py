"""Ray Serve with its dynamic batching."""

import os
import signal

import ray
from fastapi import Request, Response
from ray import serve

from tests.bench.peers.handler import MAX_BATCH_SIZE, Handler


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Peer:
    """One replica."""

    def __init__(self) -> None:
        """Load the model."""
        self.handler = Handler()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.001)
    async def answer(self, uploads: list[bytes]) -> list[bytes]:
        """Answer a batch."""
        return self.handler.answer(uploads)

    async def __call__(self, request: Request) -> Response:
        """Answer the body."""
        return Response(await self.answer(await request.body()), media_type="application/json")


if __name__ == "__main__":
    names = ("BENCH_MODEL", "PYTHONPATH")
    ray.init(
        include_dashboard=False,
        runtime_env={"env_vars": {name: os.environ[name] for name in names}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    serve.run(Peer.bind(), name="peer", route_prefix="/predict")  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
