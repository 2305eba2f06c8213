"""Store results in an archive, by STOW-RS or by C-STORE; blocking."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE

from app.domain.errors import DicomDeliveryError
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet

Deliver: TypeAlias = Callable[[Sequence[bytes]], None]
"""Stores DICOM files of one study, or raises `DicomDeliveryError`; again does no harm."""

TIMEOUT_SECONDS: Final = 30.0
_STATUS_KIND: Final = 0xF000
_WARNING: Final = 0xB000


@dataclass(frozen=True, slots=True)
class Peer:
    """An application entity.

    Attributes:
        title: Its AE title.
        host: Where it listens.
        port: Where it listens.
    """

    title: str
    host: str
    port: int


def make_deliverer(target: str, authorization: str | None, own_title: str) -> Deliver:
    """Store by STOW-RS or by C-STORE.

    Args:
        target: Address of a DICOMweb service, or `TITLE@HOST:PORT`.
        authorization: For the former, as in `stow_deliverer`.
        own_title: For the latter, as in `store_deliverer`.
    """
    if "://" in target:
        return stow_deliverer(target.rstrip("/"), authorization)
    title, _, address = target.rpartition("@")
    host, _, port = address.rpartition(":")
    return store_deliverer(own_title, Peer(title, host, int(port)))


def stow_deliverer(url: str, authorization: str | None) -> Deliver:
    """Store by STOW-RS.

    Args:
        url: Of the DICOMweb service, without `/studies`.
        authorization: Value of the Authorization header; None for none.
    """

    def deliver(files: Sequence[bytes]) -> None:
        with requests.Session() as session:
            session.trust_env = False  # no other credential from a .netrc, no proxy
            session.max_redirects = 0  # a patient's data go to no address that was not named
            if authorization is not None:
                session.headers["Authorization"] = authorization
            try:
                client = DICOMwebClient(url, session=session, timeout=TIMEOUT_SECONDS)
                client.set_http_retry_params(retry=False)  # the queue does
                stored = client.store_instances([_parse(file) for file in files])
            except Exception as error:  # of any library below; what it says may name the patient
                raise DicomDeliveryError(
                    f"STOW-RS failed ({type(error).__name__}); it is tried again."
                ) from error
        if stored.get("FailedSOPSequence"):
            raise DicomDeliveryError("STOW-RS stored only a part; it is tried again.")

    return deliver


def store_deliverer(own_title: str, peer: Peer) -> Deliver:
    """Store by C-STORE.

    Args:
        own_title: AE title of this service.
        peer: The archive.
    """

    def deliver(files: Sequence[bytes]) -> None:
        results = [_parse(file) for file in files]
        entity = AE(ae_title=own_title)
        for result in results:
            entity.add_requested_context(result.SOPClassUID, result.file_meta.TransferSyntaxUID)
        entity.connection_timeout = entity.network_timeout = TIMEOUT_SECONDS
        entity.acse_timeout = entity.dimse_timeout = TIMEOUT_SECONDS
        association = entity.associate(peer.host, peer.port, ae_title=peer.title)
        if not association.is_established:
            raise DicomDeliveryError("The archive accepts no association; it is tried again.")
        try:
            for result in results:
                _check(association.send_c_store(result))
        except ValueError as error:  # it did not accept the SOP class
            raise DicomDeliveryError("The archive does not take such results.") from error
        except RuntimeError as error:  # it ended the association between two of them
            raise DicomDeliveryError("The archive left before it had all; tried again.") from error
        finally:
            association.release()

    return deliver


def _check(status: Dataset) -> None:
    code = status.get("Status")  # none where the connection broke
    if code != 0 and (code is None or code & _STATUS_KIND != _WARNING):
        raise DicomDeliveryError("C-STORE did not succeed; it is tried again.")


def _parse(file: bytes) -> Dataset:
    return dcmread(io.BytesIO(file))
