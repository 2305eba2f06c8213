"""What is recorded of an answer, and what happens where it cannot be (ADR-0013)."""

import logging
from hashlib import sha256
from typing import Any

import anyio
from anyio import to_thread

from app.api.presenters import model_reference, present_answer
from app.audit import AuditQueue
from app.domain.errors import AuditUnavailableError
from app.domain.uploads import Upload
from app.inference.judge import Judged
from app.logs import caller, request_id
from app.metrics import Metrics

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
        data: bytes,
        upload: Upload,
        judged: Judged,
        index: int | None,
        threads: anyio.CapacityLimiter,
    ) -> None:
        """Return when an answer is on the disk.

        Args:
            data: The uploaded bytes; only their hash is kept.
            upload: The image; only its input's hash, its size and frame are kept.
            judged: The answer; its heatmap is not kept, nor what was rejected.
            index: The image's place in a batch; None outside of one.
            threads: Where the record is made: hashes take time.

        Raises:
            AuditUnavailableError: It could not be written, and records are required.
        """
        content = await to_thread.run_sync(
            self._describe, data, upload, judged, index, limiter=threads
        )
        try:
            with self._metrics.audit_seconds.time():
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
        self, data: bytes, upload: Upload, judged: Judged, index: int | None
    ) -> dict[str, Any]:
        """The record's content; blocks the calling thread."""
        answer = present_answer(judged).model_dump(mode="json")
        predicted = answer["predicted_class"]
        return {
            "request_id": request_id.get(),
            "index": index,
            "caller": caller.get(),
            "model": model_reference(judged.model).model_dump(),
            "members": [
                model_reference(member).model_dump()
                for member in judged.model.members
                if member is not judged.model
            ],
            "settings_sha256": self._settings_digest,
            "upload_sha256": sha256(data).hexdigest(),
            "input_sha256": sha256(upload.model_input.data).hexdigest(),
            "image": {"width": upload.width, "height": upload.height, "frame": upload.frame},
            "answer": {**answer, "predicted_class": predicted and predicted["label"]},
        }
