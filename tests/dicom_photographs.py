"""DICOM photographs of drawn lesions, in every form that is read, and in forms that are not."""

import io
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    UID,
    DermoscopicPhotographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from app.domain.images import RgbImage
from training.synthetic import draw_lesion

PATIENT_NAME = "Roe^Jane"


def lesion(seed: int = 7, width: int = 320, height: int = 240) -> RgbImage:
    """A drawn lesion, (height, width, 3)."""
    return draw_lesion(seed, 4, width, height)


def make_dataset(pixels: RgbImage | None = None, **elements: Any) -> Dataset:
    """A Dermoscopic Photography Image without compression; elements by keyword replace its own."""
    pixels = lesion() if pixels is None else pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    own = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SOPClassUID": DermoscopicPhotographyImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyDate": "20260102",
        "StudyTime": "101112",
        "ContentDate": "20260102",
        "ContentTime": "101112",
        "AccessionNumber": "A1",
        "Modality": "DMS",
        "Manufacturer": "Camera maker",
        "ReferringPhysicianName": "Doe^John",
        "PatientName": PATIENT_NAME,
        "PatientID": "P1",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "StudyID": "S1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in {**own, **elements}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def to_bytes(dataset: Dataset, syntax: UID | None = None) -> bytes:
    """The dataset as a file, in another uncompressed transfer syntax where one is named."""
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    syntax = dataset.file_meta.TransferSyntaxUID
    buffer = io.BytesIO()
    dataset.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=True,
    )
    return buffer.getvalue()


def encapsulated(
    frames: list[bytes], syntax: UID, pixels: RgbImage | None = None, **elements: Any
) -> bytes:
    """A file whose frames are compressed already."""
    dataset = make_dataset(pixels, **elements)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return to_bytes(dataset, syntax)


def to_jpeg(pixels: RgbImage, **options: Any) -> bytes:
    """A JPEG of quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def jpeg_photograph(pixels: RgbImage, **elements: Any) -> bytes:
    """A file of JPEG baseline."""
    own = {"PhotometricInterpretation": "YBR_FULL_422", "LossyImageCompression": "01"}
    return encapsulated([to_jpeg(pixels)], JPEGBaseline8Bit, pixels, **{**own, **elements})


def to_jpeg2000(pixels: RgbImage, **options: Any) -> bytes:
    """A lossless JPEG 2000 code stream."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG2000", no_jp2=True, **options)
    return buffer.getvalue()


def rle_photograph(pixels: RgbImage, **elements: Any) -> bytes:
    """A file of run-length encoding."""
    dataset = make_dataset(pixels, **elements)
    dataset.compress(RLELossless, generate_instance_uid=False)
    return to_bytes(dataset)


def palette_elements(pixels: RgbImage, *, bits: int = 8) -> tuple[dict[str, Any], RgbImage]:
    """The elements of a palette picture, and the pixels that it stands for."""
    picture = Image.fromarray(pixels).quantize(200)
    palette = np.asarray(picture.getpalette(), np.uint8).reshape(-1, 3)
    indices = np.asarray(picture, np.uint8)
    elements: dict[str, Any] = {
        "PhotometricInterpretation": "PALETTE COLOR",
        "SamplesPerPixel": 1,
        "PlanarConfiguration": None,
        "PixelData": indices.tobytes(),
    }
    for channel, name in enumerate(("Red", "Green", "Blue")):
        values = palette[:, channel].astype(np.uint16)
        table = values.astype(np.uint8) if bits == 8 else values << 8 | 7
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [len(palette), 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    return elements, np.ascontiguousarray(palette[indices])


def to_ybr(pixels: RgbImage) -> RgbImage:
    """The same colours as YBR_FULL."""
    return np.asarray(convert_color_space(pixels, "RGB", "YBR_FULL"), np.uint8)


def to_ybr_422(pixels: RgbImage) -> bytes:
    """The bytes of YBR_FULL_422: two luminances, then their shared chrominances."""
    ybr = to_ybr(pixels)
    first, second = ybr[:, ::2], ybr[:, 1::2]
    packed = np.stack([first[..., 0], second[..., 0], first[..., 1], first[..., 2]], axis=-1)
    return packed.tobytes()
