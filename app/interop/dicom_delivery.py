"""Store results in an archive, by STOW-RS or by C-STORE; blocking."""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from app.domain.errors import DicomDeliveryError
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet

Deliver: TypeAlias = Callable[[Sequence[bytes]], None]
"""Stores DICOM files of one study, or raises `DicomDeliveryError`; again does no harm."""

TIMEOUT_SECONDS: Final = 30.0
_STATUS_KIND: Final = 0xF000
_WARNING: Final = 0xB000
_DUPLICATE: Final = 0x0111
"""It is there already, from a try whose answer did not come: the results of one answer have always
the same UIDs."""
_JSON: Final = frozenset({"application/dicom+json", "application/json"})


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
        results = [_parse(file) for file in files]
        responses: list[requests.Response] = []
        with requests.Session() as session:
            session.trust_env = False  # no other credential from a .netrc, no proxy
            session.max_redirects = 0  # a patient's data go to no address that was not named
            session.headers["Accept"] = "application/dicom+json"
            session.hooks["response"].append(lambda response, **_: responses.append(response))
            if authorization is not None:
                session.headers["Authorization"] = authorization
            try:
                client = DICOMwebClient(url, session=session, timeout=TIMEOUT_SECONDS)
                client.set_http_retry_params(retry=False)  # the queue does
                with suppress(requests.HTTPError):  # that of 409 says what is there already
                    client.store_instances(results)
                stored = _read_stored(responses[-1])
            except Exception as error:  # of any library below; what it says may name the patient
                raise DicomDeliveryError(
                    f"STOW-RS failed ({type(error).__name__}); it is tried again."
                ) from error
        if not stored.issuperset(result.SOPInstanceUID for result in results):
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
            # All that an archive has to take is Implicit VR (PS3.5, section 10.1).
            syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
            entity.add_requested_context(result.SOPClassUID, syntaxes)
        entity.connection_timeout = entity.network_timeout = TIMEOUT_SECONDS
        entity.acse_timeout = entity.dimse_timeout = TIMEOUT_SECONDS
        association = entity.associate(peer.host, peer.port, ae_title=peer.title)
        if not association.is_established:
            raise DicomDeliveryError("The archive accepts no association; it is tried again.")
        failure: DicomDeliveryError | None = None
        try:
            for result in results:  # the others, too, where one is not taken
                try:
                    if not _is_stored(association.send_c_store(result)):
                        failure = DicomDeliveryError("C-STORE did not succeed; it is tried again.")
                except ValueError:  # it did not accept the SOP class
                    failure = DicomDeliveryError("The archive does not take such results.")
        except RuntimeError as error:  # it ended the association between two of them
            raise DicomDeliveryError("The archive left before it had all; tried again.") from error
        finally:
            association.release()
        if failure is not None:
            raise failure

    return deliver


def _read_stored(response: requests.Response) -> set[str]:
    """SOP Instance UIDs of what a STOW-RS answer says is there (PS3.18, section 10.5.3).

    Whatever else comes with a status of success, as a proxy's page, says nothing.
    """
    if response.status_code != requests.codes.conflict:
        response.raise_for_status()
    media_type = response.headers["Content-Type"].partition(";")[0].strip().lower()
    if media_type not in _JSON:
        raise ValueError("expected DICOM JSON")
    answer = Dataset.from_json(response.json())
    failed = answer.get("FailedSOPSequence") or ()
    there = [
        *(answer.get("ReferencedSOPSequence") or ()),
        *(item for item in failed if item.get("FailureReason") == _DUPLICATE),
    ]
    return {str(item.ReferencedSOPInstanceUID) for item in there}


def _is_stored(status: Dataset) -> bool:
    code = status.get("Status")  # none where the connection broke
    return code in (0, _DUPLICATE) or (code is not None and code & _STATUS_KIND == _WARNING)


def _parse(file: bytes) -> Dataset:
    return dcmread(io.BytesIO(file))
