"""Record systems that launch the page: a real one, a hostile one, and who grants access."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.app.viewer.conftest import listening
from tests.fhir_peers import running

CLIENT_ID = "dermhybrid-viewer"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "authorization, content-type, prefer",
}
Answer: TypeAlias = Callable[[], Response]


@dataclass
class Records:
    """Who may launch the page.

    Attributes:
        access: Address of the authorization server.
        fhir: Base of the real FHIR server.
        hostile: The other one.
        contexts: File of what the authorization server knows.
        elsewhere: Address of a server that nobody is to ask.
        reached: What it was asked all the same.
    """

    access: str
    fhir: str
    hostile: "Hostile"
    contexts: Path
    elsewhere: str
    reached: list[str]
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def origins(self) -> tuple[str, ...]:
        return (self.access, self.fhir, self.hostile.address)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "smart_client_id": CLIENT_ID,
            "smart_issuers": f"{self.fhir}/ {self.hostile.address}",
            "smart_authorization_origins": self.access,
        }

    def register(self, service: str) -> None:
        """Make the page at an address known to the authorization server."""
        self.known = {
            "client": CLIENT_ID,
            "redirect": f"{service}/smart",
            "audiences": [self.fhir, self.hostile.address],
            "launches": {},
        }
        self._write()

    def _write(self) -> None:
        self.contexts.write_text(json.dumps(self.known), encoding="utf-8")

    def launch(self, handle: str, issuer: str = "", **context: str) -> str:
        """The path by which a record opens the page, for a patient."""
        self.known["launches"][handle] = context
        self._write()
        return f"smart/launch?iss={quote(issuer or self.fhir, safe='')}&launch={handle}"

    def let_choose(self, **context: str) -> None:
        """What a reader chooses who comes without a launch."""
        self.known["standalone"] = context
        self._write()

    def _headers(self) -> dict[str, str]:
        form = {"grant_type": "client_credentials"}
        token = httpx2.post(f"{self.access}/token", data=form).json()["access_token"]
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}

    def create(self, kind: str, **content: Any) -> str:
        """Put a resource into the real record; its reference."""
        answer = httpx2.post(
            f"{self.fhir}/{kind}",
            content=json.dumps({"resourceType": kind, **content}),
            headers=self._headers(),
        )
        assert answer.status_code == 201, answer.text
        return f"{kind}/{answer.json()['id']}"

    def find(self, kind: str, **query: str) -> list[dict[str, Any]]:
        """Resources of the real record."""
        answer = httpx2.get(f"{self.fhir}/{kind}", params=query, headers=self._headers())
        assert answer.status_code == 200, answer.text
        return [entry["resource"] for entry in answer.json().get("entry", [])]


@dataclass
class Hostile:
    """A FHIR server that answers as a test tells it; else as one with an empty chart.

    Attributes:
        access: Address of the authorization server that it names.
        address: Its own.
        answers: By path.
        received: Method and path of each request.
        configuration: In place of what its smart-configuration says.
        leads_to: Where its redirects go.
        sent: Bytes of its endless answers.
        is_over: Whether these may end.
    """

    access: str
    address: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)
    configuration: dict[str, Any] = field(default_factory=dict)
    leads_to: str = ""
    sent: int = 0
    is_over: bool = False

    def reset(self) -> None:
        self.answers, self.received, self.configuration, self.sent = {}, [], {}, 0
        self.is_over = False
        self.patient({})

    def patient(self, content: dict[str, Any]) -> None:
        """What it says of its only patient."""
        self.resource("Patient/p1", {"resourceType": "Patient", "id": "p1", **content})

    def resource(self, path: str, content: Any) -> None:
        self.answers[f"/{path}"] = lambda: JSONResponse(content, headers=CORS)

    def chart(self, kind: str, *found: dict[str, Any]) -> None:
        """What a search for a kind finds."""
        entries = [
            {
                "resource": {
                    "resourceType": kind,
                    "id": f"{kind.lower()}-{number}",
                    "subject": {"reference": "Patient/p1"},
                    **one,
                }
            }
            for number, one in enumerate(found)
        ]
        self.resource(kind, {"resourceType": "Bundle", "type": "searchset", "entry": entries})

    def media(self, **content: Any) -> None:
        """A chart of one image."""
        self.chart(
            "Media", {"content": {"contentType": "image/png", "title": "Left arm"} | content}
        )

    async def handle(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=CORS)
        path = request.url.path
        self.received.append(f"{request.method} {path}")
        if path == "/.well-known/smart-configuration":
            return JSONResponse(
                {
                    "authorization_endpoint": f"{self.access}/authorize",
                    "token_endpoint": f"{self.access}/token",
                    "code_challenge_methods_supported": ["S256"],
                }
                | self.configuration,
                headers=CORS,
            )
        if path in self.answers:
            return self.answers[path]()
        return JSONResponse({"resourceType": "Bundle", "type": "searchset"}, headers=CORS)

    def endless(self) -> Response:
        """Bytes without an end, and without a length."""

        async def pour() -> AsyncIterator[bytes]:
            while not self.is_over:
                self.sent += 65536
                yield bytes(65536)
                await asyncio.sleep(0)

        return StreamingResponse(pour(), media_type="image/png", headers=CORS)

    def silent(self) -> Response:
        """The head of an answer, and nothing more."""

        async def wait() -> AsyncIterator[bytes]:
            yield b"\x89PNG"
            await asyncio.sleep(30)

        return StreamingResponse(wait(), media_type="image/png", headers=CORS)


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@contextmanager
def record_systems(folder: Path, **environment: str) -> Iterator[Records]:
    """Run them all on this machine."""
    contexts = folder / "contexts.json"
    contexts.write_text("{}", encoding="utf-8")
    with (
        running("launch_server.mjs", CONTEXTS=str(contexts)) as access,
        running("fhir_server.mjs", TOKEN_ISSUER=access, **environment) as fhir,
    ):
        hostile = Hostile(access)
        reached: list[str] = []

        async def note(request: Request) -> Response:
            reached.append(f"{request.method} {request.url}")
            return JSONResponse({}, headers=CORS)

        with (
            listening(_app(hostile.handle)) as hostile.address,
            listening(_app(note)) as elsewhere,
        ):
            hostile.leads_to = f"{elsewhere}/?leak"
            hostile.reset()
            try:
                yield Records(access, fhir, hostile, contexts, elsewhere, reached)
            finally:
                hostile.is_over = True


def _app(handle: Callable[[Request], Awaitable[Response]]) -> Starlette:
    methods = ["GET", "POST", "OPTIONS"]
    return Starlette(routes=[Route("/{path:path}", handle, methods=methods)])
