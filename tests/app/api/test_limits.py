"""Bodies are bounded whatever their headers say of them."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.limits import MULTIPART_OVERHEAD_BYTES, LimitBody
from app.domain.errors import ImageTooManyBytesError

MAX_IMAGE_BYTES = 1000
MAX_BYTES = MAX_IMAGE_BYTES + MULTIPART_OVERHEAD_BYTES


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads its body, and says in its status how long it was."""
    length, message = 0, await receive()
    while message["type"] == "http.request":
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
        message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"%d" % length)]})


def send_body(body: bytes, announced: str | None) -> list[Message]:
    """What comes of a body that is announced as of a length."""
    sent: list[Message] = []
    pieces = [body[i : i + 9000] for i in range(0, len(body), 9000)]

    async def receive() -> Message:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [] if announced is None else [(b"content-length", announced.encode("latin-1"))]
    scope = {"type": "http", "path": "/predict", "headers": headers}
    asyncio.run(LimitBody(read_all, MAX_IMAGE_BYTES, {})(scope, receive, send))
    return sent


@pytest.mark.parametrize("announced", [None, "", "-1", "\xb2", "1e9", "4_0", "12", "0" * 5000])
def test_the_bytes_are_counted_whatever_is_announced(announced: str | None) -> None:
    (start,) = send_body(b"x" * MAX_BYTES, announced)
    assert start["headers"] == [(b"x", b"%d" % MAX_BYTES)]
    with pytest.raises(ImageTooManyBytesError, match="longer than 66,536 bytes"):
        send_body(b"x" * (MAX_BYTES + 1), announced)


@pytest.mark.parametrize("announced", [str(MAX_BYTES + 1), "9" * 5000])
def test_what_is_announced_as_too_long_is_not_read(announced: str) -> None:
    with pytest.raises(ImageTooManyBytesError, match="longer than 66,536 bytes"):
        send_body(b"x", announced)
