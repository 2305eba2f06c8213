"""Open the DICOM worker, and the Storage SCP that feeds it, as the settings say (ADR-0019)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.api.deps import Services
from app.api.dicom_worker import DicomWorker, Patience
from app.interop.dicom_delivery import make_deliverer
from app.interop.dicom_listener import Door, StorageListener
from app.interop.dicom_queue import JobQueue
from app.interop.dicom_tls import listen_with_tls
from app.settings import Settings


@asynccontextmanager
async def run_dicom(
    settings: Settings, queue_dir: Path, services: Services
) -> AsyncIterator[DicomWorker]:
    """The worker while the service runs.

    Args:
        settings: Of the service.
        queue_dir: Where its jobs are.
        services: The application's parts.

    Raises:
        AccessConfigurationError: The listener's TLS cannot be had.
        DicomQueueError: The queue cannot be opened.
        OSError: The address cannot be listened on.
    """
    secret = settings.dicom_store_authorization
    deliver = make_deliverer(
        str(settings.dicom_store_url or settings.dicom_store_peer),
        secret.get_secret_value() if secret else None,
        settings.dicom_ae_title,
    )
    patience = Patience(
        max_attempts=settings.dicom_max_attempts,
        retry_seconds=settings.dicom_retry_seconds,
        dead_seconds=settings.dicom_dead_days * 24 * 3600,
        max_dead=settings.dicom_max_dead,
    )
    door = _door(settings)
    queue = JobQueue(queue_dir, settings.dicom_max_waiting)
    worker = DicomWorker(services, queue, deliver, patience)
    try:
        if door is None:
            yield worker
            return
        ended = services.metrics.dicom.associations
        listener = StorageListener(
            door, settings.max_image_bytes, worker.take, lambda reason: ended.labels(reason).inc()
        )
        try:
            yield worker
        finally:
            await asyncio.to_thread(listener.close)
    finally:
        await worker.close()


def _door(settings: Settings) -> Door | None:
    """Where the Storage SCP listens and for whom; None where there is none."""
    if settings.dicom_listen_port is None:
        return None
    tls = None
    if settings.dicom_tls_certificate and settings.dicom_tls_private_key:
        tls = listen_with_tls(
            settings.dicom_tls_certificate,
            settings.dicom_tls_private_key,
            settings.dicom_tls_client_ca,
        )
    address = (settings.dicom_listen_host, settings.dicom_listen_port)
    return Door(settings.dicom_ae_title, address, settings.dicom_callers, tls)
