"""What is recorded of a CDS Hooks card before it is shown (ADR-0013)."""

import logging

from app.audit import AuditQueue
from app.domain.errors import AuditUnavailableError
from app.interop.cds_hooks import SERVICE_ID, FiledAnswer, HookRequest
from app.interop.fhir_codes import Json
from app.logs import caller, request_id
from app.metrics import Metrics

logger = logging.getLogger(__name__)


class CardRecorder:
    """Records who was shown which answer."""

    def __init__(self, queue: AuditQueue, metrics: Metrics, *, required: bool) -> None:
        """Take over a queue.

        Args:
            queue: Where records go, a chain of their own.
            metrics: Where failures are counted.
            required: Show no card that is not recorded.
        """
        self._queue, self._metrics, self._required = queue, metrics, required

    async def record(self, asked: HookRequest, card: Json, shown: FiledAnswer) -> None:
        """Return when a card is on the disk.

        The patient is not in the record; the answer's name is, and the record system knows whose
        it is.

        Args:
            asked: The call.
            card: Its answer.
            shown: What the card is about.

        Raises:
            AuditUnavailableError: It could not be written, and records are required.
        """
        content = {
            "request_id": request_id.get(),
            "caller": caller.get(),
            "service": SERVICE_ID,
            "hook_instance": str(asked.hook_instance),
            "card": card["uuid"],
            "shown": {
                "name": shown.name,
                "action": shown.action,
                "issued": shown.issued.isoformat(),
            },
        }
        try:
            await self._queue.append(content)
        except AuditUnavailableError as error:
            self._metrics.audit_failures.inc()
            logger.error("card not recorded", extra={"reason": str(error.__cause__)})  # noqa: TRY400
            if self._required:
                raise

    async def close(self) -> None:
        """Write what waits."""
        await self._queue.close()
