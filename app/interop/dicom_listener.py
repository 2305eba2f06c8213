"""A DICOM Storage SCP: what a modality or an archive sends is on the disk before it is told so."""

import logging
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Final

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from app.domain.errors import ImageRejectedError
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet
from app.interop.dicom_files import PHOTOGRAPHS, TRANSFER_SYNTAXES
from app.interop.dicom_tls import certificate_of, report_failures

MAX_ASSOCIATIONS: Final = 8
MAX_OVERHEAD_BYTES: Final = 64 * 1024
"""Of a request to associate and of commands; headers of data are below a 64th."""

MAX_PDU_BYTES: Final = 64 * 1024
"""Of one protocol data unit; 16 KiB are negotiated, and a request to associate is as long as its
contexts. Its sender declares up to 4 GiB, before anybody has looked who that is."""
PDU_SECONDS: Final = 30.0
"""For one to come in, once it has begun."""

_NO_TITLE: Final = re.compile(r"[^!-\[\]-~ ]")
"""What an AE title has none of (PS3.5, section 6.2)."""

_SUCCESS: Final = 0x0000
_OUT_OF_RESOURCES: Final = 0xA700
_CANNOT_UNDERSTAND: Final = 0xC000
"""Statuses of C-STORE (PS3.4, table B.2-1)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """Where a Storage SCP listens, and for whom.

    Attributes:
        title: AE title; calls to another one are rejected.
        address: Host and port.
        calling_titles: AE titles that may call; any may where there are none.
        tls: From `listen_with_tls`; None for none.
    """

    title: str
    address: tuple[str, int]
    calling_titles: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None


class StorageListener:
    """Listens in threads of its own, from its making to its end."""

    def __init__(
        self,
        door: Door,
        max_bytes: int,
        take: Callable[[bytes, str], object],
        count_ended: Callable[[str], object],
    ) -> None:
        """Listen.

        Args:
            door: Where, and for whom.
            max_bytes: Longest object; a longer one ends its association while it comes in.
            take: Gets each object as a DICOM file, with who sent it, and returns when it is on
                the disk.
            count_ended: Called when an association is ended by this side, with the reason:
                `rejected`, `tls` (no handshake), `no-context` (nothing that is taken was
                offered), `object-too-long`, `pdu-too-long`, `pdu-too-slow`.

        Raises:
            OSError: The address cannot be listened on.
        """
        self._max_bytes, self._take = max_bytes + max_bytes // 64 + MAX_OVERHEAD_BYTES, take
        self._count_ended = count_ended
        entity = AE(ae_title=door.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(door.calling_titles)
        entity.maximum_associations = MAX_ASSOCIATIONS
        entity.add_supported_context(Verification)
        # Nothing else is negotiated: the service's own results cannot even be offered.
        for sop_class in PHOTOGRAPHS:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._bound),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DATA_RECV, self._count),
            (evt.EVT_CONN_CLOSE, self._forget),
            (evt.EVT_REJECTED, self._report_rejection),
        ]
        self._received: dict[int, int] = {}
        if door.tls is not None:
            report_failures(door.tls, self._report_tls)
        server = entity.start_server(
            door.address, block=False, ssl_context=door.tls, evt_handlers=handlers
        )
        assert isinstance(server, ThreadedAssociationServer)  # noqa: S101  it does not block
        self._server = server

    def close(self) -> None:
        """End all associations."""
        self._server.shutdown()

    def _store(self, event: Event) -> int:
        self._received.pop(id(event.assoc), None)
        try:
            self._take(event.encoded_dataset(), _sender(event))
        except ImageRejectedError as error:
            logger.warning("object refused", extra={"reason": type(error).__name__})
            return _CANNOT_UNDERSTAND
        except Exception as error:  # noqa: BLE001  no memory? The object may be a good one.
            logger.error("object not taken", extra={"reason": type(error).__name__})  # noqa: TRY400
            return _OUT_OF_RESOURCES
        return _SUCCESS

    def _bound(self, event: Event) -> None:
        """Bound each unit where it is read: the library reads as much as its sender declares."""
        connection = event.assoc.dul.socket
        assert connection and connection.socket  # noqa: S101, PT018  it was just accepted
        below = connection.socket

        def receive(num_bytes: int) -> bytearray:
            received, end = bytearray(), monotonic() + PDU_SECONDS
            before = below.gettimeout()
            if num_bytes > MAX_PDU_BYTES:
                raise self._end_association("pdu-too-long")
            while len(received) < num_bytes:
                below.settimeout(max(end - monotonic(), 0.001))
                try:
                    piece = below.recv(num_bytes - len(received))
                except TimeoutError:
                    raise self._end_association("pdu-too-slow") from None
                if not piece:
                    break
                received += piece
            below.settimeout(before)
            return received

        connection.recv = receive  # type: ignore[method-assign, assignment]

    def _end_association(self, reason: str) -> OSError:
        """What the library takes for a connection that broke."""
        logger.warning("association ended", extra={"reason": reason})
        self._count_ended(reason)
        return OSError(reason)

    def _report_rejection(self, event: Event) -> None:
        # Not the title: an unknown caller may have written anything there.
        logger.warning("association rejected", extra={"caller": _address(event)})
        self._count_ended("rejected")

    def _report_tls(self, reason: str) -> None:
        logger.warning("association not secured", extra={"reason": reason})
        self._count_ended("tls")

    def _forget(self, event: Event) -> None:
        num_received = self._received.pop(id(event.assoc), 0)
        # Who asked for nothing has only looked whether the port is open.
        if num_received and not (event.assoc.accepted_contexts or event.assoc.is_rejected):
            logger.warning("association without context", extra={"caller": _address(event)})
            self._count_ended("no-context")

    def _count(self, event: Event) -> None:
        """Bound what an object may take of the memory: the library gathers it whole."""
        before = self._received.get(id(event.assoc), 0)
        self._received[id(event.assoc)] = before + len(event.data)
        # Once: what is on its way still comes, piece by piece.
        if before <= self._max_bytes < before + len(event.data):
            logger.warning("association ended", extra={"reason": "object too long"})
            self._count_ended("object-too-long")
            event.assoc.abort()


def _sender(event: Event) -> str:
    """Who calls, for the audit log: a title that anybody may claim, an address, and its key.

    The last is the SHA-256 of the certificate by which mutual TLS let the caller in.
    """
    title = _NO_TITLE.sub("?", event.assoc.requestor.ae_title.strip())
    found = f"ae:{title}@{_address(event)}"
    connection = event.assoc.dul.socket
    shown = certificate_of(connection.socket) if connection else None
    return f"{found};cert:{sha256(shown).hexdigest()}" if shown else found


def _address(event: Event) -> str:
    found = event.assoc.requestor.address_info
    return "" if found is None else str(found.address)
