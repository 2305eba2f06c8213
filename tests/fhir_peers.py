"""Servers that FHIR is tried against: real ones of `tests/peers`, and one that fails as told."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.programs import require_peers


@contextmanager
def running(script: str, **environment: str) -> Iterator[str]:
    """Run a server of `tests/peers`; gives its address, which it prints when it listens."""
    process = subprocess.Popen(
        ["node", script],
        cwd=require_peers(),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=30)


def write_key(path: Path, *, rsa_bits: int | None = None) -> str:
    """Write a new private key; returns the public one, PEM."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if rsa_bits is None:
        key = ec.generate_private_key(ec.SECP384R1())
    else:
        key = rsa.generate_private_key(65537, rsa_bits)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public.decode()


@dataclass
class Scripted:
    """A server that gives answers one after the other, and the last one for ever.

    Attributes:
        address: Of the server.
        answers: Status and body, each.
        headers: Of each answer.
        received: Path and body of each request.
    """

    address: str
    answers: list[tuple[int, bytes]]
    headers: dict[str, str] = field(default_factory=dict)
    received: list[tuple[str, bytes]] = field(default_factory=list)


@contextmanager
def scripted(*answers: tuple[int, bytes], **headers: str) -> Iterator[Scripted]:
    """Run a `Scripted` server on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = script.answers[min(len(script.received), len(script.answers) - 1)]
            script.received.append((self.path, body))
            self.send_response(status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Scripted(f"http://127.0.0.1:{server.server_port}", list(answers), headers)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
