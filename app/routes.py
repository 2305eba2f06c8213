"""The routes of what is configured."""

from fastapi import APIRouter

from app.api import admin, batch, cds, fhir, models, operations, predict, smart, viewer
from app.api import feedback as feedback_routes
from app.domain.errors import DicomSupportMissingError
from app.settings import Settings


def make_routers(settings: Settings, *, has_feedback: bool) -> list[APIRouter]:
    """The routes of what is configured.

    Raises:
        DicomSupportMissingError: DICOM jobs are, and what reads DICOM is not installed.
    """
    routers = [module.router for module in (predict, batch, fhir, models, operations)]
    shown = _viewer_settings(settings, has_feedback=has_feedback)
    routers.append(viewer.make_router(shown))
    if settings.smart_client_id is not None:
        routers.append(smart.make_router(_smart_settings(settings), shown.embedders))
    if has_feedback:
        routers.append(feedback_routes.router)
    if settings.has_credentials:
        routers.append(admin.router)
    if settings.cds_hooks:
        page = None if settings.public_url is None else str(settings.public_url)
        routers.append(cds.make_router(page))
    if settings.dicom_queue_dir is not None:
        try:
            from app.api import dicom
        except ImportError as error:
            raise DicomSupportMissingError(
                "DICOM_QUEUE_DIR is set, and the extra `interop` is not installed "
                "(`uv sync --frozen --inexact --extra interop`)."
            ) from error
        routers.append(dicom.router)
    return routers


def _viewer_settings(settings: Settings, *, has_feedback: bool) -> viewer.ViewerSettings:
    return viewer.ViewerSettings(
        embedders=settings.viewer_frame_ancestors.split(),
        feedback=has_feedback,
        authentication=settings.has_credentials,
        max_image_bytes=settings.max_image_bytes,
    )


def _smart_settings(settings: Settings) -> smart.SmartSettings:
    return smart.SmartSettings(
        client_id=settings.smart_client_id or "",
        issuers=[issuer.rstrip("/") for issuer in settings.smart_issuers.split()],
        authorization_origins=settings.smart_authorization_origins.split(),
        scopes=settings.smart_scopes,
    )
