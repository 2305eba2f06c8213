"""Make the service's parts as its settings say."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.access.authenticator import Authenticator
from app.access.quota import Quota
from app.access.tokens import TokenVerifier
from app.api import cds
from app.api.admission import Admission
from app.api.auditor import Auditor
from app.api.card_records import CardRecorder
from app.api.deps import Services
from app.api.feedback import Feedback
from app.audit import CARDS_FOLDER, AuditLog, AuditQueue
from app.domain.errors import TracingUnavailableError
from app.feedback import FEEDBACK_FOLDER
from app.inference.batcher import BatchLimits
from app.inference.fleet import Fleet
from app.inference.models import Engine, LoadedModel
from app.inference.registry import ModelRegistry, load_registry
from app.inference.release import Release, loaded_release, read_release, require_release
from app.interop.fhir_access import TokenAccess, open_fhir_server
from app.interop.fhir_conformance import OPERATION_PATH
from app.metrics import Metrics
from app.settings import Settings
from app.tracing import Tracing

if TYPE_CHECKING:
    from app.api.dicom_worker import DicomWorker
    from app.interop.fhir_server import FhirServer
    from app.trace_export import TraceExport

logger = logging.getLogger(__name__)


def make_fleet(
    settings: Settings,
    release: Release | None,
    make_engine: Callable[[Path], Engine],
    metrics: Metrics,
    tracing: Tracing,
) -> Fleet:
    """A fleet that has loaded nothing yet.

    Args:
        settings: Say where the models are, and how they are batched.
        release: The models that it may serve, where they are fixed.
        make_engine: Makes what runs an artifact.
        metrics: Where measurements go.
        tracing: Makes spans.
    """
    limits = BatchLimits(
        max_items=settings.max_batch_size,
        max_wait_seconds=settings.max_batch_wait_seconds,
        max_waiting=settings.max_predictions_in_progress
        + settings.max_batches_in_progress * settings.max_batch_size,
    )
    return Fleet(partial(_load_models, settings, release, make_engine), limits, metrics, tracing)


def _load_models(
    settings: Settings,
    release: Release | None,
    make_engine: Callable[[Path], Engine],
    known: Mapping[str, LoadedModel],
) -> ModelRegistry:
    """Read the models folder; where the release is fixed, only as that."""
    if release is not None:  # before anything of another one takes time and memory
        require_release(read_release(settings.models_dir), release)
    registry = load_registry(
        settings.models_dir,
        settings.default_model,
        make_engine,
        known,
        shadow_name=settings.shadow_model,
        public_keys=settings.model_public_keys,
    )
    if release is not None:
        require_release(loaded_release(registry), release)
    return registry


def make_authenticator(settings: Settings) -> Authenticator:
    """Tell callers apart by the credentials that are configured.

    Raises:
        AccessConfigurationError: They cannot be read.
    """
    tokens = None
    if settings.oauth_issuer and settings.oauth_audience and settings.oauth_jwks:
        tokens = TokenVerifier(settings.oauth_issuer, settings.oauth_audience, settings.oauth_jwks)
    authenticator = Authenticator(settings.api_keys_file, tokens)
    if authenticator.is_open:
        logger.warning(
            "AUTHENTICATION IS OFF: whoever reaches this service may use it. Set API_KEYS_FILE or "
            "OAUTH_ISSUER to tell callers apart."
        )
    return authenticator


def make_quota(settings: Settings) -> Quota | None:
    """Of each caller; None for no bound."""
    if settings.quota_per_minute is None:
        return None
    return Quota(settings.quota_per_minute, settings.quota_burst)


def make_doors(settings: Settings) -> dict[str, Admission]:
    """The doors before what takes long, by path."""
    predictions = Admission(settings.max_predictions_in_progress)
    doors = {
        "/predict": predictions,
        OPERATION_PATH: predictions,
        "/predict/batch": Admission(settings.max_batches_in_progress),
        cds.CDS_PATH: Admission(cds.MAX_CDS_IN_PROGRESS),
    }
    if settings.dicom_queue_dir is not None:
        doors["/dicom/studies"] = Admission(settings.max_batches_in_progress)
    return doors


def open_audit(
    settings: Settings, metrics: Metrics, *, has_feedback: bool
) -> tuple[Auditor | None, Feedback | None, CardRecorder | None]:
    """Open the logs of answers, of feedback and of cards; needs a running event loop."""
    folder, size = settings.audit_dir, settings.audit_max_file_bytes
    if folder is None:
        return None, None, None
    answers, required = AuditLog(folder, size), settings.audit_required
    feedback = cards = None
    if has_feedback:
        diagnoses = AuditLog(folder / FEEDBACK_FOLDER, size)
        feedback = Feedback(folder, AuditQueue(diagnoses), metrics)
    if settings.cds_hooks:
        log = AuditLog(folder / CARDS_FOLDER, size)
        cards = CardRecorder(AuditQueue(log), metrics, required=required)
    return (
        Auditor(AuditQueue(answers), metrics, settings.digest(), required=required),
        feedback,
        cards,
    )


def open_trace_export(settings: Settings, metrics: Metrics) -> "TraceExport | None":
    """Open the way to the collector, where there is one.

    Raises:
        TracingUnavailableError: The extra `otel` is not installed.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    try:
        from app.trace_export import TraceExport
    except ImportError as error:
        raise TracingUnavailableError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra `otel` is not installed "
            "(`uv sync --frozen --inexact --extra otel`)."
        ) from error
    return TraceExport(
        str(settings.otel_exporter_otlp_endpoint),
        lambda reason, number: metrics.trace_spans_lost.labels(reason).inc(number),
    )


def open_fhir_store(settings: Settings) -> "FhirServer | None":
    """Open the way to the FHIR server, where there is one."""
    if settings.fhir_server_url is None:
        return None
    access = None
    if settings.fhir_token_url is not None:
        key_file, key_id = settings.fhir_private_key_file, settings.fhir_key_id
        # The settings see to it.
        assert settings.fhir_client_id and key_file and key_id  # noqa: S101, PT018
        access = TokenAccess(
            str(settings.fhir_token_url),
            settings.fhir_client_id,
            key_file,
            key_id,
            settings.fhir_scope,
        )
    return open_fhir_server(str(settings.fhir_server_url), access, settings.fhir_timeout_seconds)


@asynccontextmanager
async def open_dicom(settings: Settings, services: Services) -> AsyncIterator["DicomWorker | None"]:
    """The DICOM worker and its listener while the service runs; None where there is none."""
    if settings.dicom_queue_dir is None:
        yield None
        return
    from app.api.dicom_service import run_dicom

    async with run_dicom(settings, settings.dicom_queue_dir, services) as worker:
        yield worker
