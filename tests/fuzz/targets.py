"""What is fuzzed: the decoders, which may refuse bytes of any origin in one way alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from app.domain.errors import ImageRejectedError
from app.domain.images import ImageLimits
from app.domain.uploads import read_upload, to_upload
from app.interop.dicom_pixels import read_photograph

CORPUS: Final = Path(__file__).parent / "corpus"
"""`<target>/`: drawn pictures of all kinds that are read, and what a fuzzer has found."""

LIMITS: Final = ImageLimits(max_bytes=1 << 20, max_pixels=1 << 20, min_side_pixels=16)
MAX_PICTURE_SIDE: Final = 256


def decode_picture(data: bytes) -> bool:
    """Read a picture file as `/predict` does; whether it was one."""
    try:
        upload = read_upload(data, LIMITS, MAX_PICTURE_SIDE)
    except ImageRejectedError:
        return False
    assert upload.model_input.shape == (224, 224, 3)
    assert max(upload.picture.shape) <= MAX_PICTURE_SIDE
    return True


def decode_dicom(data: bytes) -> bool:
    """Read a DICOM object as `/predict` does; whether it was a photograph."""
    try:
        decoded = read_photograph(data, LIMITS).decoded
    except ImageRejectedError:
        return False
    assert to_upload(decoded, MAX_PICTURE_SIDE).model_input.shape == (224, 224, 3)
    return True


TARGETS: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "picture": decode_picture,
    "dicom": decode_dicom,
}
