"""Real sockets of clients that take their time."""

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from multiprocessing.queues import Queue
from pathlib import Path

import httpx2
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.errors import domain_problem
from app.domain.errors import ResourcesExhaustedError
from app.protocol import MAX_HEAD_BYTES
from tests.app.bounded_server import ANSWER, SECONDS, serve, server
from tests.certificates import make_certificate
from tests.ports import free_port
from tests.service_process import openvino_service

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(conversation: Talk) -> None:
    async def scenario() -> None:
        async with server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                async with asyncio.timeout(60):
                    await conversation(reader, writer)
            finally:
                writer.close()

    asyncio.run(scenario())


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send a piece again and again until the server has had enough."""
    while not reader.at_eof():
        try:
            writer.write(piece)
            await writer.drain()
            await asyncio.wait_for(reader.read(1 << 16), SECONDS / 5)
        except TimeoutError:
            pass
        except ConnectionError:
            return


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_was_sent_while_the_process_was_stopped_is_answered(loop: str) -> None:
    whole, seconds = b"GET / HTTP/1.1\r\n\r\n", 3
    context = multiprocessing.get_context("spawn")
    ports: Queue[int] = context.Queue()
    process = context.Process(target=serve, args=(loop, seconds, ports), daemon=True)
    process.start()
    try:
        address = ("127.0.0.1", ports.get(timeout=120))
        with ExitStack() as stack:
            idle, begun, anew = (
                stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(3)
            )
            idle.sendall(whole)
            assert receive_answer(idle)
            begun.sendall(whole[:8])
            time.sleep(SECONDS / 5)
            assert process.pid
            os.kill(process.pid, signal.SIGSTOP)
            idle.sendall(whole)
            begun.sendall(whole[8:])
            anew.sendall(whole)
            time.sleep(seconds + 1)
            os.kill(process.pid, signal.SIGCONT)
            assert [receive_answer(client) for client in (idle, begun, anew)] == [True] * 3
    finally:
        process.kill()
        process.join()
        ports.close()


def receive_answer(client: socket.socket) -> bool:
    received = b""
    while not received.endswith(b"done") and (piece := client.recv(4096)):
        received += piece
    return received.endswith(b"done")


@pytest.mark.parametrize("begin", [b"", b"G", b"\r\n", HEAD])
def test_a_head_that_does_not_come_is_not_waited_for(begin: bytes) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        assert await reader.read() == b""

    talk(conversation)


@pytest.mark.parametrize("piece", [b"x-a: b\r\n", b"\r\n"])
def test_a_head_that_comes_in_drops_is_not_waited_for(piece: bytes) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if piece != b"\r\n":
            writer.write(HEAD)
        await drip(reader, writer, piece)

    talk(conversation)


def test_nor_is_one_after_an_answer() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        await drip(reader, writer, b"\r\n")

    talk(conversation)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEAD, b"x-a: " + b"b" * 1000 + b"\r\n"),
        (b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD, b"x-a: " + b"b" * 1000 + b"\r\n"),
        (HEAD + CHUNKED + b"0\r\n", b"x-a: b\r\n" * 100),
        (HEAD + CHUNKED + b"0\r\nx-a: ", b"b" * 1000),
        (HEAD + CHUNKED + b"1;", b"b" * 1000),
    ],
    ids=["head", "head of the next", "trailers", "trailer", "extension of a chunk"],
)
def test_what_is_no_body_has_an_end(begin: bytes, piece: bytes) -> None:
    async def conversation(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        with pytest.raises(ConnectionError):
            await write_often(writer, piece, 1000 * MAX_HEAD_BYTES)

    talk(conversation)


async def write_often(writer: asyncio.StreamWriter, piece: bytes, num_bytes: int) -> None:
    for _ in range(num_bytes // len(piece)):
        writer.write(piece)
        await writer.drain()


@pytest.mark.parametrize("requests_before", [0, 1])
def test_what_cannot_be_read_for_want_of_memory_is_no_bad_request(
    monkeypatch: pytest.MonkeyPatch, requests_before: int
) -> None:
    on_header, num_headers = HttpToolsProtocol.on_header, 0

    def fail(self: HttpToolsProtocol, name: bytes, value: bytes) -> None:
        nonlocal num_headers  # each request has one
        num_headers += 1
        if num_headers > requests_before:
            raise MemoryError
        on_header(self, name, value)

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(requests_before):
            writer.write(HEAD + b"\r\n")
            assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        writer.write(HEAD + b"\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        expected = domain_problem(ResourcesExhaustedError())
        assert f"retry-after: {expected.headers['retry-after']}".encode() in head
        assert f"content-type: {expected.headers['content-type']}".encode() in head
        received, common = json.loads(body), json.loads(bytes(expected.body))
        for member in ("type", "title", "status"):
            assert received[member] == common[member]

    monkeypatch.setattr(HttpToolsProtocol, "on_header", fail)
    talk(conversation)


def test_what_is_no_http_is_a_bad_request() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no http\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")

    talk(conversation)


def test_the_rest_of_a_refused_body_may_come_at_once_and_not_for_ever() -> None:
    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 20 * MAX_HEAD_BYTES
        for _ in range(2):  # the connection goes on
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
            await writer.drain()
            assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")

    async def in_drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
        await reader.readuntil(b"done")
        await drip(reader, writer, b"x")

    talk(at_once)
    talk(in_drops)


def test_the_end_of_a_refused_body_is_not_taken_for_a_long_head() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 3 * MAX_HEAD_BYTES
        for _ in range(5):
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size)
            assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
            writer.write(b"x" * size)  # comes in one piece
            await writer.drain()
            await asyncio.sleep(SECONDS / 10)

    talk(conversation)


def test_a_body_that_is_read_may_take_longer() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = HEAD.replace(b"/ ", b"/echo ", 1)
        writer.write(head + b"Content-Length: 4\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(SECONDS / 2)
            writer.write(b"x")
        assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")

    talk(conversation)


@pytest.mark.parametrize("reads", [True, False])
def test_an_answer_is_for_whoever_takes_it(reads: bool) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.replace(b"/ ", b"/long ", 1) + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        if not reads:
            await asyncio.sleep(5 * SECONDS)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(len(ANSWER))
            return
        received = 0
        while received < len(ANSWER):  # slowly
            received += len(await reader.readexactly(len(ANSWER) // 16))
            await asyncio.sleep(SECONDS / 4)

    talk(conversation)


def test_operators_have_a_port_of_their_own(tiny_models: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"OPERATIONS_PORT": str(port), "RUNTIME": "openvino"}
    with openvino_service(tiny_models, tmp_path / "log", **settings) as (_, address):
        expected = {"/metrics": 200, "/health/ready": 200}
        for path in ("/models", "/predict", "/", "/viewer/settings.json", "/openapi.json"):
            expected[path] = 404
        for path, status in expected.items():
            assert httpx2.get(f"http://127.0.0.1:{port}{path}").status_code == status, path
        expected = {"/metrics": 404, "/models": 200, "/health/ready": 200}
        for path, status in expected.items():
            headers = {"host": f"127.0.0.1:{port}"}  # it is the socket that counts
            assert httpx2.get(f"{address}{path}", headers=headers).status_code == status, path


def test_https_with_a_certificate_that_is_renewed(tiny_models: Path, tmp_path: Path) -> None:
    def subject(address: str, trusted: Path) -> str:
        host, port = address.removeprefix("https://").split(":")
        context = ssl.create_default_context(cafile=trusted)
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            return str(tls.getpeercert()["subject"])  # type: ignore[index]

    crt, key = make_certificate(tmp_path, "first")
    settings = {"TLS_CERTIFICATE": str(crt), "TLS_PRIVATE_KEY": str(key), "RUNTIME": "openvino"}
    with openvino_service(tiny_models, tmp_path / "log", **settings) as (process, address):
        answer = httpx2.get(f"{address}/models", verify=ssl.create_default_context(cafile=crt))
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        make_certificate(tmp_path, "second")
        process.send_signal(1)
        give_up = time.monotonic() + 60
        while True:
            try:
                assert "second" in subject(address, crt)
                break
            except (AssertionError, ssl.SSLError):
                assert time.monotonic() < give_up
        # A renewal that is half done: the next certificate, and not its key yet.
        second, old_key = shutil.copyfile(crt, tmp_path / "second.crt"), key.read_bytes()
        make_certificate(tmp_path, "third")
        key.write_bytes(old_key)
        process.send_signal(1)
        give_up = time.monotonic() + 60
        while "certificate not read" not in (tmp_path / "log").read_text():
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert "second" in subject(address, second)
