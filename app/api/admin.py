"""`/admin`: for operators; there only where callers are told apart."""

import asyncio

from fastapi import APIRouter

from app.access.scopes import Scope
from app.api.deps import ServicesDep
from app.api.guard import requires
from app.api.models import list_models
from app.api.schemas import ModelList, Problem

router = APIRouter(prefix="/admin", tags=["administration"], dependencies=[requires(Scope.ADMIN)])


@router.post(
    "/reload",
    summary="Serve what the models folder holds now",
    responses={
        409: {"model": Problem, "description": "A model must not be served; nothing changed."},
    },
)
async def reload(services: ServicesDep) -> ModelList:
    """Load, verify, warm up and test what is new, then swap; or change nothing and say why.

    Goes on to its end where the caller's time passes; the log has the outcome.
    """
    await asyncio.shield(asyncio.create_task(services.fleet.reload(), name="reload"))
    return await list_models(services)
