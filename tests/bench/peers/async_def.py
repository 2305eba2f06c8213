"""FastAPI as most projects write it: the model runs inside `async def`."""

import os

import uvicorn
from fastapi import FastAPI, Request, Response

from tests.bench.peers.handler import Handler

app = FastAPI()
handler = Handler()


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Answer the body."""
    (answer,) = handler.answer([await request.body()])
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["BENCH_PORT"]), log_level="warning")
