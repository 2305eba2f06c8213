"""What a result takes over from the photograph that it is about, and the identifiers of results."""

import re
import uuid
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, PersonName

from app.domain.errors import ImageCorruptError
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet
from app.interop.dicom_files import value_of

Kind = Literal["report", "heatmap", "report-series", "heatmap-series", "group", "observer"]

_NAMESPACE: Final = uuid.UUID("0c1a3b7e-6d54-5f0e-9a52-6a5f5ed1c5b1")
"""Drawn once for this project; a change of it changes every result's identifiers."""

_LONGEST_LO: Final = 64
_TEXTS: Final[dict[str, int]] = {"AccessionNumber": 16, "StudyID": 16}
"""Longest values of the value representations LO and SH (PS3.5, section 6.2)."""

ISSUER: Final = ("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence")
"""Whose identifier `PatientID` is: the same number is another person elsewhere."""

_NAMES: Final = ("PatientName", "ReferringPhysicianName")
_SEXES: Final = frozenset({"M", "F", "O"})
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f\\\ufffd]")
"""Control characters, what stands between values, and what pydicom puts in the place of bytes that
are no text in the declared character set: they may have been anybody's name."""
_METHOD: Final = re.compile(r"[A-Z0-9_ ]{1,16}")
"""The value representation CS."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two answers the same one; results of the same answer have the same identifiers.

    Attributes:
        digest: SHA-256 of the model.
        runtime: What ran it: its 8-bit form answers differently.
        action: What is to become of the answer, which depends on settings as well.
        frame: Of the photograph, from 1.
    """

    digest: str
    runtime: str
    action: str
    frame: int


def derive_uid(source_uid: str, identity: Identity, kind: Kind, explained: str = "") -> UID:
    """The identifier of a result, the same each time (PS3.5, annex B.2: a UUID under 2.25).

    Args:
        source_uid: SOP Instance UID of the photograph; Series Instance UID for a series; empty
            for the observer.
        identity: Of the answer. Series and observer take no more of it than digest and runtime.
        kind: What is named.
        explained: What a heatmap shows.
    """
    parts = [kind, source_uid, identity.digest, identity.runtime]
    if kind in ("report", "heatmap", "group"):
        parts += [identity.action, str(identity.frame)]
    if explained:
        parts.append(explained)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}")


def take_over(photograph: Dataset) -> Dataset:
    """The elements of a photograph that its results share: patient, study, and who it is.

    Args:
        photograph: From `read_object`, nothing in it checked.

    Returns:
        A dataset of these elements alone, in UTF-8. What breaks the standard is left empty, the
        identifiers excepted: without them a result would belong to nothing, or to nobody.

    Raises:
        ImageCorruptError: An identifier is missing or none; the patient's may be missing.
    """
    source = Dataset()
    source.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        uid = UID(str(value_of(photograph, keyword)))
        if not uid.is_valid:
            raise ImageCorruptError(
                f"The DICOM object's {keyword} is missing or none. Export it again."
            )
        setattr(source, keyword, uid)
    _take_patient(source, photograph)
    for keyword, longest in _TEXTS.items():
        setattr(source, keyword, _text(value_of(photograph, keyword), longest))
    for keyword in _NAMES:
        setattr(source, keyword, PersonName(_text(value_of(photograph, keyword), 3 * 64)))
    sex = _text(value_of(photograph, "PatientSex"), 16)
    source.PatientSex = sex if sex in _SEXES else ""
    for keyword in ("PatientBirthDate", "StudyDate"):
        setattr(source, keyword, _moment(DA, value_of(photograph, keyword)))
    source.StudyTime = _moment(TM, value_of(photograph, "StudyTime"))
    number = value_of(photograph, "InstanceNumber")
    source.InstanceNumber = number if isinstance(number, int) and 0 < number < 2**31 else 1
    _take_pixels_history(source, photograph)
    return source


def _take_pixels_history(source: Dataset, photograph: Dataset) -> None:
    """What is true of the results' pixels, too, for they show the photograph's."""
    if (burned_in := value_of(photograph, "BurnedInAnnotation")) in ("YES", "NO"):
        source.BurnedInAnnotation = burned_in
    if value_of(photograph, "LossyImageCompression") != "01":
        return
    source.LossyImageCompression = "01"
    ratios = [_ratio(value) for value in _values(photograph, "LossyImageCompressionRatio")]
    if ratios and "" not in ratios:
        source.LossyImageCompressionRatio = ratios
    methods = [str(value) for value in _values(photograph, "LossyImageCompressionMethod")]
    if methods and all(_METHOD.fullmatch(method) for method in methods):
        source.LossyImageCompressionMethod = methods


def _values(photograph: Dataset, keyword: str) -> list[object]:
    value = value_of(photograph, keyword)
    return list(value) if isinstance(value, MultiValue) else [] if value is None else [value]


def _ratio(value: object) -> str:
    """As DS, of at most 16 characters; empty where it is none."""
    try:
        ratio = float(str(value))
    except ValueError:
        return ""
    return f"{ratio:.6g}" if 0 < ratio < inf else ""


def _take_patient(source: Dataset, photograph: Dataset) -> None:
    for keyword in ("PatientID", "IssuerOfPatientID"):
        _take_identifier(source, photograph, keyword)
    if authority := _read_authority(photograph):
        source.IssuerOfPatientIDQualifiersSequence = [authority]


def _take_identifier(source: Dataset, photograph: Dataset, keyword: str) -> None:
    """One without which a result could be filed under somebody else."""
    value = value_of(photograph, keyword)
    text = _text(value, _LONGEST_LO) if isinstance(value, str) else ""
    if value and not text:
        raise ImageCorruptError(
            f"The DICOM object's {keyword} is no text of at most {_LONGEST_LO} characters: its "
            "results could not be filed under the patient. Export it again."
        )
    if text or keyword == "PatientID":
        setattr(source, keyword, text)


def _read_authority(photograph: Dataset) -> Dataset | None:
    """The universal identifier of who has given the patient's identifier (PS3.3, table 10-18)."""
    sequence = value_of(photograph, "IssuerOfPatientIDQualifiersSequence")
    if not isinstance(sequence, Sequence) or len(sequence) != 1:
        return None
    authority = Dataset()
    for keyword in ("UniversalEntityID", "UniversalEntityIDType"):
        text = _text(value_of(sequence[0], keyword), _LONGEST_LO)
        if not text:
            return None
        setattr(authority, keyword, text)
    return authority


def _text(value: object, longest: int) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= longest and not _NO_TEXT.search(text) else ""


def _moment(kind: type[DA] | type[TM], value: object) -> str:
    text = _text(value, 28)
    try:
        kind(text)
    except Exception:  # noqa: BLE001  as above
        return ""
    return text
