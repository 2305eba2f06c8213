"""`GET /models`: what is loaded, where it comes from, and how good it was measured to be."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.access.scopes import Scope
from app.api.deps import ServicesDep
from app.api.guard import requires
from app.api.presenters import class_schema
from app.api.schemas import ModelDetail, ModelList, ModelSummary, Problem
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
        200: {"content": {"text/markdown": {"schema": {"type": "string"}}}},
        404: {"model": Problem, "description": "No loaded model has that name."},
    },
)
async def show_card(services: ServicesDep, name: ModelName) -> Response:
    """Intended use, data, training, all figures with their intervals, and limits; Markdown."""
    card = services.fleet.registry.get(name).card
    return Response(card, media_type="text/markdown")


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
