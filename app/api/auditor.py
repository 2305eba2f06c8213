"""What is recorded of an answer, and what happens where it cannot be (ADR-0013)."""

import logging
from hashlib import sha256
from typing import Any

import anyio
from anyio import to_thread

from app.audit import AuditQueue
from app.domain.errors import AuditUnavailableError
from app.domain.labels import LABELS
from app.domain.uploads import Upload
from app.inference.explain import Prediction
from app.inference.registry import LoadedModel
from app.telemetry import Metrics, caller, request_id

logger = logging.getLogger(__name__)


class Auditor:
    """Records answers before they are given."""

    def __init__(
        self, queue: AuditQueue, metrics: Metrics, settings_digest: str, *, required: bool
    ) -> None:
        """Take over a queue.

        Args:
            queue: Where records go.
            metrics: Where failures are counted.
            settings_digest: Of the service's settings.
            required: Give no answer that is not recorded.
        """
        self._queue, self._metrics = queue, metrics
        self._settings_digest, self._required = settings_digest, required
        metrics.audit_sequence.set(queue.sequence)

    async def record(
        self,
        model: LoadedModel,
        data: bytes,
        upload: Upload,
        prediction: Prediction,
        threads: anyio.CapacityLimiter,
    ) -> None:
        """Return when an answer is on the disk.

        Args:
            model: Who answered.
            data: The uploaded bytes; only their hash is kept.
            upload: The image; only its input's hash and its size are kept.
            prediction: The answer; its heatmap is not kept.
            threads: Where the hashes are computed.

        Raises:
            AuditUnavailableError: It could not be written, and records are required.
        """
        content = self._describe(model, upload, prediction)
        content["upload_sha256"] = await to_thread.run_sync(_sha256, data, limiter=threads)
        try:
            await self._queue.append(content)
        except AuditUnavailableError as error:
            self._metrics.audit_failures.inc()
            logger.error("answer not recorded", extra={"reason": str(error.__cause__)})  # noqa: TRY400
            if self._required:
                raise
        self._metrics.audit_sequence.set(self._queue.sequence)

    async def close(self) -> None:
        """Write what waits."""
        await self._queue.close()

    def _describe(
        self, model: LoadedModel, upload: Upload, prediction: Prediction
    ) -> dict[str, Any]:
        manifest = model.manifest
        return {
            "request_id": request_id.get(),
            "caller": caller.get(),
            "model": {
                "name": manifest.name,
                "version": manifest.version,
                "digest": model.digest,
                "runtime": model.engine.runtime,
            },
            "settings_sha256": self._settings_digest,
            "input_sha256": _sha256(upload.model_input.tobytes()),
            "image": {"width": upload.width, "height": upload.height},
            "answer": {
                "predicted_class": prediction.predicted.label,
                "confidence": prediction.confidence,
                "calibrated": manifest.calibration is not None,
                "probabilities": dict(zip(LABELS, prediction.probabilities.tolist(), strict=True)),
            },
        }


def _sha256(data: bytes) -> str:
    return sha256(data).hexdigest()
