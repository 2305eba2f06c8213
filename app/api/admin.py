"""`/admin`: for operators, behind a bearer token whose digest is in the settings."""

import asyncio
import hmac
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from app.api.deps import ServicesDep
from app.api.models import list_models
from app.api.schemas import ModelList, Problem


def make_router(token_sha256: str) -> APIRouter:
    """The administration's routes.

    Args:
        token_sha256: SHA-256 of the token, in hexadecimal.
    """

    async def authenticate(
        credentials: Annotated[
            HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))
        ],
    ) -> None:
        token = credentials.credentials if credentials else ""
        if not hmac.compare_digest(sha256(token.encode()).hexdigest(), token_sha256):
            raise HTTPException(
                401,
                "Send the administrator's token as `Authorization: Bearer TOKEN`.",
                {"WWW-Authenticate": "Bearer"},
            )

    router = APIRouter(
        prefix="/admin", tags=["administration"], dependencies=[Depends(authenticate)]
    )

    @router.post(
        "/reload",
        summary="Serve what the models folder holds now",
        responses={
            401: {"model": Problem, "description": "The token is missing or wrong."},
            409: {"model": Problem, "description": "A model must not be served; nothing changed."},
        },
    )
    async def reload(services: ServicesDep) -> ModelList:
        """Load, verify, warm up and test what is new, then swap; or change nothing and say why.

        Goes on to its end where the caller's time passes; the log has the outcome.
        """
        await asyncio.shield(asyncio.create_task(services.fleet.reload(), name="reload"))
        return await list_models(services)

    return router
