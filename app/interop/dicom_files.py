"""From the bytes of a DICOM file to its data elements, within bounds; looks at no pixel."""

import io
import zlib
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    DermoscopicPhotographyImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    VLPhotographicImageStorage,
)

from app.domain.errors import (
    DermHybridError,
    DicomNotPhotographError,
    ImageCorruptError,
    ImageFormatError,
    is_exhaustion,
)
from app.domain.images import ImageLimits
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet

PHOTOGRAPHS: Final = (DermoscopicPhotographyImageStorage, VLPhotographicImageStorage)
"""SOP classes that are answered."""

TRANSFER_SYNTAXES: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEG2000Lossless,
    JPEG2000,
    RLELossless,
)
"""Those whose pixels are read."""

MAX_READS: Final = 50_000
"""A photograph has some hundred data elements, each read in two or three parts; a sequence of
millions of items would take gigabytes."""

MAX_OTHER_BYTES: Final = 1024 * 1024
"""What a deflated object may hold beside its pixels."""

MAX_VALUE_BYTES: Final = 4096
"""Of a value that is short by the standard. One is read at once, and made into objects later: a
name of twenty million backslashes deflates to 20 KB and takes half a gigabyte."""

_SHORT: Final = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "PN", "SH", "SL", "SS"}
    | {"TM", "UI", "UL", "US", "US or SS"}
)
"""Value representations (PS3.5, section 6.2) whose values an answer may depend on."""

_ISSUER: Final = tag_for_keyword("IssuerOfPatientIDQualifiersSequence")
_BULK: Final = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "PixelData",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    )
)
"""Long, and read: as bytes alone."""

_BYTES: Final = frozenset({None, "OB", "OW", "OV", "UN", "US"})
"""None where the transfer syntax leaves it to the dictionary."""

_SEQUENCES: Final = frozenset({None, "SQ", "UN"})
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_META_START: Final = 132
_META_GROUP: Final = 0x0002


class _MeteredReader(io.BytesIO):
    """Bytes that can be read so often: each data element and each item takes a read or more."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As every file's, until there were too many."""
        self._reads_left -= 1
        if self._reads_left < 0:
            raise ImageCorruptError(
                "The DICOM object has more data elements than any photograph needs, some ten "
                "thousand. Send the image alone, without what was added to it."
            )
        return super().read(size)


def read_object(data: bytes, limits: ImageLimits) -> Dataset:
    """Read a DICOM file (PS3.10) of a transfer syntax whose pixels can be read.

    Args:
        data: The file's bytes, of any origin.
        limits: Bounds on pixels, which bound what a deflated object may hold.

    Returns:
        Its data elements, mostly unread yet, with `file_meta`. Nothing in them is checked.

    Raises:
        ImageFormatError: Another transfer syntax.
        ImageCorruptError: The bytes cannot be read as one, or have too many data elements.
    """
    try:
        return _read(data, limits)
    except DermHybridError:
        raise
    except Exception as error:  # a parser may raise anything on hostile bytes
        if is_exhaustion(error):
            raise  # the file may be a good one
        raise ImageCorruptError(
            "The file begins as DICOM and its data elements cannot be read: it is truncated or "
            "damaged. Export or transfer it again."
        ) from error


def known_name(uid: object) -> str:
    """A UID's name where the standard has it; never the value, which may hold anything."""
    value = UID(str(uid))
    # A UID that the standard does not have is its own name.
    return value.name if value.name != str(uid) else "none of the standard's"


def value_of(dataset: Dataset, keyword: str) -> object:
    """A value of an unchecked dataset; None where it is missing or cannot be read."""
    try:
        return dataset.get(keyword)
    except Exception as error:  # a parser may raise anything on hostile bytes
        if is_exhaustion(error):
            raise
        return None


def check_photograph(dataset: Dataset) -> None:
    """Look at an object's kind.

    Raises:
        DicomNotPhotographError: Another SOP class than `PHOTOGRAPHS`.
    """
    sop_class = value_of(dataset, "SOPClassUID")
    if sop_class not in PHOTOGRAPHS:
        raise DicomNotPhotographError(
            f"The DICOM object's SOP class is {known_name(sop_class)}; expected "
            f"{' or '.join(known.name for known in PHOTOGRAPHS)}."
        )


def _read(data: bytes, limits: ImageLimits) -> Dataset:
    reader = _MeteredReader(data)
    reader.seek(_META_START)
    meta = FileMetaDataset(
        read_dataset(reader, is_implicit_VR=False, is_little_endian=True, stop_when=_is_after_meta)
    )
    syntax = UID(str(meta.get("TransferSyntaxUID", "")))
    if syntax not in TRANSFER_SYNTAXES:
        raise ImageFormatError(
            f"The DICOM object's transfer syntax is {known_name(syntax)}; expected one of "
            f"{', '.join(known.name for known in TRANSFER_SYNTAXES)}. Let the sender convert it."
        )
    if syntax == DeflatedExplicitVRLittleEndian:
        reader = _MeteredReader(_inflate(data[reader.tell() :], limits))
        meta.TransferSyntaxUID = syntax = ExplicitVRLittleEndian
    dataset = read_dataset(
        reader,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=True,
        stop_when=_check_element,
    )
    dataset.file_meta = meta
    return dataset


def _is_after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != _META_GROUP or _check_element(tag, vr, length)


def _check_element(tag: BaseTag, vr: str | None, length: int) -> bool:
    """Refuse a value that is longer than it may be, before it is read.

    Args:
        tag: Of the data element.
        vr: What the file says its value is; None where it says nothing.
        length: Of the value in bytes; 0xFFFFFFFF for one that ends with a delimiter.

    Returns:
        False: the file goes on.
    """
    if length <= MAX_VALUE_BYTES or not dictionary_has_tag(tag):
        return False
    is_short = dictionary_VR(tag) in _SHORT
    if tag == _ISSUER:  # item by item, and counted, where its length is left open
        is_short = length != _UNDEFINED_LENGTH or vr not in _SEQUENCES
    if is_short or (tag in _BULK and vr not in _BYTES):
        raise ImageCorruptError(
            f"The DICOM object's data element {tag} is of another kind or length than the standard "
            f"has it; expected at most {MAX_VALUE_BYTES:,} bytes, and bytes alone for pixels and "
            "palettes. Export it again."
        )
    return False


def _inflate(deflated: bytes, limits: ImageLimits) -> bytes:
    """Undo the deflation of PS3.5, section A.5, up to what a picture may hold."""
    most = 3 * limits.max_pixels + MAX_OTHER_BYTES
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(deflated, most + 1)
    if len(inflated) > most:
        raise ImageCorruptError(
            f"The deflated DICOM object holds more than {most:,} bytes, which no picture of "
            f"{limits.max_pixels:,} pixels needs. Send a smaller picture, or one frame."
        )
    if not stream.eof:
        raise ImageCorruptError(
            "The deflated DICOM object ends too early: it is truncated. Transfer it again."
        )
    return inflated
