"""`GET /models`: what is loaded, where it comes from, and how good it was measured to be."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from app.access.scopes import Scope
from app.api.deps import ServicesDep
from app.api.guard import requires
from app.api.presenters import class_schema
from app.api.schemas import ModelDetail, ModelList, ModelSummary, Problem
from app.domain.card import applied_model_card
from app.domain.card_schema import AppliedModelCard
from app.domain.labels import CLASSES
from app.inference.models import LoadedModel
from app.inference.registry import Loaded, ModelRegistry

ModelName = Annotated[str, Path(description="Model name, or name@version.", max_length=80)]

router = APIRouter(prefix="/models", tags=["models"], dependencies=[requires(Scope.MODELS_READ)])


@router.get("", summary="List the loaded models")
async def list_models(services: ServicesDep) -> ModelList:
    """Every loaded model, the newest version of each name first."""
    registry = services.fleet.registry
    return ModelList(models=[_summary(registry, model) for model in registry.all()])


@router.get(
    "/{name}",
    summary="Describe a loaded model",
    responses={404: {"model": Problem, "description": "No loaded model has that name."}},
)
async def describe_model(
    services: ServicesDep,
    name: ModelName,
) -> ModelDetail:
    """Origin, training and measured quality of a model."""
    registry = services.fleet.registry
    model = registry.get(name)
    manifest = model.manifest
    return ModelDetail(
        **_summary(registry, model).model_dump(),
        classes=[class_schema(c) for c in CLASSES],
        training=model.manifest.training if isinstance(model, LoadedModel) else None,
        members=[] if isinstance(model, LoadedModel) else model.manifest.members,
        calibration=manifest.calibration,
        metrics=manifest.metrics,
        decision_rules=manifest.decision,
        quantized=model.manifest.quantized if isinstance(model, LoadedModel) else None,
        license=model.drawn.manifest.license,
    )


@router.get(
    "/{name}/card",
    summary="The model card",
    response_class=Response,
    responses={
        200: {
            "model": AppliedModelCard,
            "content": {"text/markdown": {"schema": {"type": "string"}}},
        },
        404: {"model": Problem, "description": "No loaded model has that name."},
    },
)
async def show_card(
    services: ServicesDep,
    name: ModelName,
    form: Annotated[
        Literal["markdown", "json"],
        Query(alias="format", description="json: the fields of CHAI's Applied Model Card."),
    ] = "markdown",
) -> Response:
    """Intended use, data, training, all figures with their intervals, and limits."""
    model = services.fleet.registry.get(name)
    if form == "markdown":
        return Response(model.card, media_type="text/markdown")
    members = [member.manifest for member in model.members]
    card = applied_model_card(model.manifest, model.digest, members)
    return Response(card.model_dump_json(), media_type="application/json")


def _summary(registry: ModelRegistry, model: Loaded) -> ModelSummary:
    manifest = model.manifest
    return ModelSummary(
        name=manifest.name,
        version=manifest.version,
        digest=model.digest,
        runtime=model.runtime,
        title=manifest.title,
        default=model is registry.default,
        has_attention=model.drawn.manifest.has_attention,
        num_parameters=sum(m.manifest.num_parameters for m in model.members),
    )
