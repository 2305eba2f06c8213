"""`/smart`: the clinician's page as a record system launches it (SMART App Launch, ADR-0025).

Files alone: the launch, and all that is read and written afterwards, is between the browser and the
record. Nothing here sees a token.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.api.viewer import FILES, METHODS, security_headers


class SmartSettings(BaseModel):
    """What the page knows of who may launch it.

    Attributes:
        client_id: As it is registered there.
        issuers: Bases of the FHIR servers, without a slash at the end.
        authorization_origins: Of authorization servers that lie elsewhere.
        scopes: What it asks for, beside the launch itself.
    """

    client_id: str
    issuers: list[str]
    authorization_origins: list[str]
    scopes: str

    def origins(self) -> list[str]:
        """All origins that it may ask, each once."""
        parts = map(urlsplit, self.issuers)
        own = [f"{part.scheme}://{part.netloc}" for part in parts]
        return list(dict.fromkeys([*own, *self.authorization_origins]))


def make_router(settings: SmartSettings, embedders: Sequence[str]) -> APIRouter:
    """The routes of a launch.

    Args:
        settings: What the page is told.
        embedders: Origins of the pages that may hold this one in a frame.
    """
    router = APIRouter(include_in_schema=False)
    headers = {
        **security_headers(embedders, settings.origins()),
        # The address has a code that is good once; and no patient is to come back from a cache.
        "Cache-Control": "no-store",
    }

    async def send(path: str, request: Request) -> Response:
        response = await FILES.get_response(path, request.scope)
        response.headers.update(headers)
        return response

    @router.api_route("/smart/launch", methods=METHODS)
    async def launch(request: Request) -> Response:
        """Where a launch begins."""
        return await send("smart/launch.html", request)

    @router.api_route("/smart", methods=METHODS)
    async def chart(request: Request) -> Response:
        """The page with a chart: where the authorization server sends its reader to."""
        return await send("index.html", request)

    @router.get("/smart/settings.json")
    async def read_settings(response: Response) -> SmartSettings:
        """What the page is told."""
        response.headers.update(headers)
        return settings

    return router
