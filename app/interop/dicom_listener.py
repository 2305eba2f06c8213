"""A DICOM Storage SCP: what a modality or an archive sends is on the disk before it is told so."""

import logging
from collections.abc import Callable
from typing import Final

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from app.domain.errors import DermHybridError, ImageRejectedError
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet
from app.interop.dicom_files import PHOTOGRAPHS, TRANSFER_SYNTAXES

MAX_ASSOCIATIONS: Final = 8
MAX_OVERHEAD_BYTES: Final = 64 * 1024
"""Of a request to associate and of commands; headers of data are below a 64th."""

_SUCCESS: Final = 0x0000
_OUT_OF_RESOURCES: Final = 0xA700
_CANNOT_UNDERSTAND: Final = 0xC000
"""Statuses of C-STORE (PS3.4, table B.2-1)."""

logger = logging.getLogger(__name__)


class StorageListener:
    """Listens in threads of its own, from its making to its end."""

    def __init__(
        self, title: str, address: tuple[str, int], max_bytes: int, take: Callable[[bytes], object]
    ) -> None:
        """Listen.

        Args:
            title: AE title; calls to another one are rejected.
            address: Host and port.
            max_bytes: Longest object; a longer one ends its association while it comes in.
            take: Gets each object as a DICOM file, and returns when it is on the disk.

        Raises:
            OSError: The address cannot be listened on.
        """
        self._max_bytes, self._take = max_bytes + max_bytes // 64 + MAX_OVERHEAD_BYTES, take
        entity = AE(ae_title=title)
        entity.require_called_aet = True
        entity.maximum_associations = MAX_ASSOCIATIONS
        entity.add_supported_context(Verification)
        # Nothing else is negotiated: the service's own results cannot even be offered.
        for sop_class in PHOTOGRAPHS:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DATA_RECV, self._count),
            (evt.EVT_CONN_CLOSE, self._forget),
        ]
        self._received: dict[int, int] = {}
        server = entity.start_server(address, block=False, evt_handlers=handlers)
        assert isinstance(server, ThreadedAssociationServer)  # noqa: S101  it does not block
        self._server = server

    def close(self) -> None:
        """End all associations."""
        self._server.shutdown()

    def _store(self, event: Event) -> int:
        self._received.pop(id(event.assoc), None)
        try:
            self._take(event.encoded_dataset())
        except ImageRejectedError as error:
            logger.warning("object refused", extra={"reason": type(error).__name__})
            return _CANNOT_UNDERSTAND
        except DermHybridError as error:
            logger.error("object not taken", extra={"reason": type(error).__name__})  # noqa: TRY400
            return _OUT_OF_RESOURCES
        return _SUCCESS

    def _forget(self, event: Event) -> None:
        self._received.pop(id(event.assoc), None)

    def _count(self, event: Event) -> None:
        """Bound what an object may take of the memory: the library gathers it whole."""
        received = self._received.get(id(event.assoc), 0) + len(event.data)
        self._received[id(event.assoc)] = received
        if received > self._max_bytes:
            logger.warning("association ended", extra={"reason": "object too long"})
            event.assoc.abort()
