"""What names a patient stays in the upload: not in answers, logs, metrics, audit, overlays."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import ATTENTION_MODEL
from tests.dicom_photographs import jpeg_photograph, lesion, make_dataset, rle_photograph, to_bytes
from tests.service_process import service_process
from training.synthetic import draw_lesion

MARKER = "Zzyzx-Quux"
"""A patient's name."""

XMP = f"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
xmlns:dc="http://purl.org/dc/elements/1.1/" dc:creator="{MARKER}"/></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


def with_exif() -> bytes:
    """EXIF of a picture, in every place that holds text."""
    exif = Image.Exif()
    for tag in (0x010E, 0x010F, 0x0110, 0x013B, 0x8298):  # description to copyright
        exif[tag] = MARKER
    exif[0x9C9C] = f"{MARKER}\0".encode("utf-16-le")  # XPComment
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + MARKER.encode()  # UserComment
    exif.get_ifd(0x8825)[0x001D] = MARKER  # GPSDateStamp
    return bytes(exif.tobytes())


def uploads() -> dict[str, bytes]:
    """Pictures, and what only looks like one, with the marker wherever a format has a place."""
    picture = Image.fromarray(draw_lesion(7, 4, 320, 240))
    files: dict[str, bytes] = {}

    def save(name: str, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files[name] = buffer.getvalue()

    exif = with_exif()
    save("exif.jpg", "JPEG", exif=exif, comment=MARKER.encode(), xmp=XMP)
    text = PngInfo()
    text.add_text("Patient", MARKER)
    text.add_text("Compressed", MARKER * 20, zip=True)
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    save("text.png", "PNG", pnginfo=text, exif=exif)
    save("tags.tiff", "TIFF", tiffinfo={270: MARKER, 315: MARKER, 700: XMP, 65000: MARKER})
    save("exif.webp", "WEBP", exif=exif, xmp=XMP)
    # Refused ones: their problems must not quote them.
    files["cut.jpg"] = files["exif.jpg"][:-2000]
    files["broken.png"] = files["text.png"].replace(b"IDAT", b"IDAX", 1)
    files["behind.jpg"] = files["exif.jpg"] + MARKER.encode()
    files["letter.txt"] = f"Dear colleague, {MARKER} has a lesion".encode()
    files["empty.png"] = b""
    element = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", len(MARKER)) + MARKER.encode()
    files["study.dcm"] = bytes(128) + b"DICM" + element
    files |= dicom_uploads()
    chunk = b"tEXt" + b"Patient\0" + MARKER.encode()
    length, checksum = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk) ^ 1)
    files["checksum.png"] = files["text.png"][:33] + length + chunk + checksum
    return files


def dicom_uploads() -> dict[str, bytes]:
    """DICOM photographs with the marker in every place for text, and damaged ones."""
    names: dict[str, Any] = {
        "PatientName": MARKER,
        "PatientID": MARKER,
        "PatientComments": MARKER,
        "ReferringPhysicianName": MARKER,
        "InstitutionName": MARKER,
        "StudyDescription": MARKER,
        "AccessionNumber": MARKER,
    }
    pixels = lesion()
    files = {
        "raw.dcm": to_bytes(make_dataset(pixels, **names)),
        "jpeg.dcm": jpeg_photograph(pixels, **names),
        "rle.dcm": rle_photograph(pixels, **names),
        "no-pixels.dcm": to_bytes(make_dataset(pixels, **{**names, "PixelData": b""})),
        "grey.dcm": to_bytes(make_dataset(pixels, PhotometricInterpretation=MARKER, **names)),
        "class.dcm": to_bytes(make_dataset(pixels, **names, SOPClassUID=MARKER)),
    }
    # Values that no library accepts: they warn of them, and quote them.
    wrong = make_dataset(pixels, **names)
    wrong.PatientBirthDate = wrong.PatientSex = wrong.StudyTime = MARKER
    wrong.add_new("InstanceNumber", "LO", MARKER)
    wrong.add_new("SpecificCharacterSet", "CS", MARKER)
    files["wrong.dcm"] = to_bytes(wrong)
    wrong.add_new("NumberOfFrames", "LO", MARKER)
    files["frames.dcm"] = to_bytes(wrong)
    wrong.add_new("Rows", "LO", MARKER)
    files["rows.dcm"] = to_bytes(wrong)
    files["cut.dcm"] = files["raw.dcm"][:-2000]
    files["implicit.dcm"] = files["raw.dcm"].replace(b"PN", b"\x01\x02")
    return files


@pytest.fixture(scope="module")
def served(
    tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The service as a process that logs everything it can: address, folder of log and audit."""
    folder = tmp_path_factory.mktemp("served")
    log = folder / "log.jsonl"
    settings = {
        "MODELS_DIR": str(tiny_models),
        "RUNTIME": "openvino",
        "AUDIT_DIR": str(folder / "audit"),
        "LOG_LEVEL": "DEBUG",
        "MAX_IMAGE_BYTES": "2000000",
    }
    with service_process(log, settings, 120) as (_, address):
        yield address, folder


def holds_marker(data: bytes) -> bool:
    """Whether the marker is in some bytes, in any encoding that a format may have put it in."""
    encodings = ("utf-8", "utf-16-le", "utf-16-be")
    return any(MARKER.lower().encode(encoding) in data.lower() for encoding in encodings)


def test_the_marker_is_in_every_upload() -> None:
    for name, data in uploads().items():
        assert holds_marker(data) or name in {"empty.png"}, name


def test_no_patient_data_leaves_an_upload(served: tuple[str, Path]) -> None:
    address, folder = served
    answers: list[bytes] = []
    statuses: dict[str, int] = {}
    query = {"model": ATTENTION_MODEL, "heatmap_method": "grad-cam"}
    with httpx2.Client(base_url=address, timeout=60) as client:
        for name, data in uploads().items():
            file = (f"{MARKER}/{name}", data, f"image/{MARKER}")
            form = {"PatientName": MARKER, MARKER: MARKER}
            headers = {"User-Agent": MARKER, "Referer": f"http://{MARKER}/", "Cookie": MARKER}
            for path in ("/predict", "/predict/batch"):
                response = client.post(
                    path, files={"image": file}, data=form, params=query, headers=headers
                )
                answers += [response.content, repr(response.headers.raw).encode()]
                statuses.setdefault(name, response.status_code)
            if response.status_code == 200 and statuses[name] == 200:
                answer = json.loads(response.content)["answer"]
                answers.append(base64.b64decode(answer["heatmap"]["overlay"]))
            response = client.post(
                "/predict", content=data, headers={"Content-Type": f"image/{MARKER}"}
            )
            answers.append(response.content)
        for path, params in (
            ("/predict", {"model": MARKER}),
            ("/predict", {"heatmap_class": MARKER}),
            ("/predict", {"overlay_format": MARKER}),
            ("/predict", {MARKER: MARKER}),
            ("/predict/batch", {"tta": MARKER}),
        ):
            answers.append(client.post(path, files={"image": b"x"}, params=params).content)
        answers += [
            client.get(f"/models/{MARKER}").content,
            client.get(f"/{MARKER}").content,
            client.post("/predict", data={"image": MARKER}).content,
            client.post("/predict", content=b"{}", headers={"Content-Type": MARKER}).content,
        ]
        answers.append(client.get("/metrics").content)
    good = {"exif.jpg", "text.png", "tags.tiff", "exif.webp", "behind.jpg"}
    good |= {"raw.dcm", "jpeg.dcm", "rle.dcm", "wrong.dcm"}
    assert {name for name, status in statuses.items() if status == 200} >= good - {"behind.jpg"}
    assert all(statuses[name] >= 400 for name in statuses if name not in good)
    for answer in answers:
        assert not holds_marker(answer), answer[:500]
    records = b"".join(path.read_bytes() for path in (folder / "audit").rglob("*.json*"))
    assert records.count(b"upload_sha256") >= 2 * len(good - {"behind.jpg"})
    assert not holds_marker(records)
    log = (folder / "log.jsonl").read_bytes()
    assert not holds_marker(log), log.decode()


def test_overlays_carry_no_metadata(served: tuple[str, Path]) -> None:
    address, _ = served
    for overlay_format in ("png", "jpeg"):
        answer = httpx2.post(
            f"{address}/predict",
            files={"image": uploads()["exif.jpg"]},
            params={"overlay_format": overlay_format},
            timeout=60,
        ).json()
        with Image.open(io.BytesIO(base64.b64decode(answer["heatmap"]["overlay"]))) as overlay:
            overlay.load()
            assert not overlay.getexif()
            assert not set(overlay.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
