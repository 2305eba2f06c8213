"""The clinician's page at `/`: static files, under headers that let it load nothing from elsewhere.

The page itself is in `app/viewer/`, and is a client of the API as any other one (ADR-0016).
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

FILES: Final = StaticFiles(directory=str(files("app") / "viewer"))
METHODS: Final = ["GET", "HEAD"]


class _CompressedResponse(Response):
    """A file of the page, compressed for whoever takes gzip.

    These files alone: they are the same for everyone, so that their length tells nothing of a
    reader, as an answer's would beside text of a caller's own (BREACH, CVE-2013-3587).
    """

    def __init__(self, response: Response) -> None:
        super().__init__(status_code=response.status_code)
        self.raw_headers = response.raw_headers  # the same list: what is set here is sent
        if tag := self.headers.get("etag"):
            # Of both forms, which are not the same byte for byte (RFC 9110, 8.8.1).
            self.headers["etag"] = f"W/{tag}"
        self._send = GZipMiddleware(response)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send(scope, receive, send)


class ViewerSettings(BaseModel):
    """What the page knows of the service's settings.

    Attributes:
        embedders: Origins of the pages that may hold this one in a frame and talk to it.
        feedback: Whether diagnoses are taken back.
        authentication: Whether the page's reader needs a credential.
        max_image_bytes: Largest upload.
    """

    embedders: list[str]
    feedback: bool
    authentication: bool
    max_image_bytes: int


def security_headers(frame_ancestors: Sequence[str], servers: Sequence[str] = ()) -> dict[str, str]:
    """Headers of the page's files: own scripts and styles alone, and no other site's frame.

    Args:
        frame_ancestors: Origins that may embed the page; none for no one.
        servers: Origins that it may ask, beside its own.
    """
    ancestors = " ".join(frame_ancestors) or "'none'"
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        " ".join(["connect-src 'self'", *servers]),
        # An image that was dropped is shown from the browser's memory.
        "img-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        f"frame-ancestors {ancestors}",
        # No text can become markup, in whichever way: the browser refuses it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), usb=(), payment=()",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        # Asked again each time, and answered with 304: the files of two versions never mix.
        "Cache-Control": "no-cache",
    }


def make_router(settings: ViewerSettings) -> APIRouter:
    """The routes of the page.

    Args:
        settings: What the page is told.
    """
    router = APIRouter(include_in_schema=False)
    headers = security_headers(settings.embedders)

    async def send(path: str, request: Request) -> Response:
        response = _CompressedResponse(await FILES.get_response(path, request.scope))
        response.headers.update(headers)
        return response

    @router.api_route("/", methods=METHODS)
    async def page(request: Request) -> Response:
        """The page."""
        return await send("index.html", request)

    @router.get("/viewer/settings.json")
    async def read_settings(response: Response) -> ViewerSettings:
        """What the page is told."""
        response.headers.update(headers)
        return settings

    @router.api_route("/viewer/{path:path}", methods=METHODS)
    async def file(path: Annotated[str, Path(max_length=200)], request: Request) -> Response:
        """One of the page's files."""
        return await send(path, request)

    return router
