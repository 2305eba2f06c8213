"""Results are valid DICOM objects of the photograph's study that say what the answer says."""

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DermoscopicPhotographyImageStorage,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from app.domain.captions import warn_of
from app.domain.decision import Action, Reason
from app.domain.errors import ImageCorruptError
from app.domain.heatmap_checks import HeatmapFlag
from app.domain.images import DEFAULT_LIMITS
from app.domain.labels import CLASSES, LABELS, DiagnosticClass
from app.domain.notice import RESEARCH_USE_NOTICE, SHORT_NOTICE
from app.interop.dicom_capture import make_capture
from app.interop.dicom_files import read_object
from app.interop.dicom_report import Algorithm, ReportedAnswer, make_report
from app.interop.dicom_source import take_over
from tests.dicom_photographs import PATIENT_NAME, lesion, make_dataset, to_bytes
from tests.programs import require_program

ALGORITHM = Algorithm("tiny", 3, "ab" * 32, "openvino", "0.1.0")
PROBABILITIES = np.random.default_rng(5).dirichlet(np.ones(7)).astype(np.float32)
OVERLAY = lesion(3)


def make_answer(
    predicted: DiagnosticClass = CLASSES[5],
    algorithm: Algorithm = ALGORITHM,
    action: Action = Action.REFER,
    frame: int | None = None,
) -> ReportedAnswer:
    return ReportedAnswer(
        algorithm,
        frame,
        action,
        (Reason.MALIGNANCY, Reason.LARGE_SET),
        "A specialist has to look at this picture.",
        calibrated=True,
        probabilities=dict(zip(LABELS, PROBABILITIES.tolist(), strict=True)),
        predicted=predicted,
    )


REJECTED = ReportedAnswer(
    ALGORITHM,
    None,
    Action.REJECT,
    tuple(Reason),
    "No answer is given for this picture.",
    calibrated=True,
    probabilities=None,
    predicted=None,
)


def make_source(**elements: Any) -> Dataset:
    return take_over(read_object(to_bytes(make_dataset(**elements)), DEFAULT_LIMITS))


def made_of(**elements: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def written(result: Dataset) -> Dataset:
    buffer = io.BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()))


def items(node: Dataset) -> list[Dataset]:
    children = list(node.get("ContentSequence", []))
    return children + [item for child in children for item in items(child)]


def meanings(report: Dataset) -> dict[str, list[Any]]:
    """The values of a report by their concept's meaning."""
    found: dict[str, list[Any]] = {}
    for item in items(report):
        if "ConceptNameCodeSequence" not in item:
            continue
        value: Any = item.get("TextValue")
        if "MeasuredValueSequence" in item:
            value = item.MeasuredValueSequence[0].FloatingPointValue
        if "ConceptCodeSequence" in item:
            code = item.ConceptCodeSequence[0]
            value = (code.get("CodeValue") or code.LongCodeValue, code.CodingSchemeDesignator)
        found.setdefault(item.ConceptNameCodeSequence[0].CodeMeaning, []).append(value)
    return found


def assert_valid(result: Dataset, path: Path) -> None:
    result.save_as(path, enforce_file_format=True)
    process = subprocess.run(
        [require_program("dciodvfy"), path], capture_output=True, text=True, check=False
    )
    assert "Error" not in process.stdout + process.stderr


@pytest.mark.parametrize("lossy", ["00", "01"])
@pytest.mark.parametrize("predicted", CLASSES, ids=LABELS)
def test_results_break_no_rule_of_the_standard(
    tmp_path: Path, predicted: DiagnosticClass, lossy: str
) -> None:
    source, answer = make_source(LossyImageCompression=lossy), make_answer(predicted)
    assert_valid(make_report(source, answer), tmp_path / "report.dcm")
    assert_valid(make_capture(source, answer, OVERLAY, "Grad-CAM"), tmp_path / "heatmap.dcm")
    assert_valid(make_report(source, REJECTED), tmp_path / "rejected.dcm")


def test_a_report_says_what_the_answer_does() -> None:
    source = make_source()
    report = written(make_report(source, make_answer()))
    found = meanings(report)
    for diagnostic_class, probability in zip(CLASSES, PROBABILITIES.tolist(), strict=True):
        name = diagnostic_class.name.split(" (")[0].lower()
        assert found[f"Probability of {name}"] == [probability]
    assert found["Probability of the most probable class"] == [float(PROBABILITIES[5])]
    assert found["Most probable class"] == [("nv", "99DERMHYBRID")]
    assert found["Most probable class in SNOMED CT"] == [("400096001", "SCT")]
    assert found["Decision on the answer"] == [("refer", "99DERMHYBRID")]
    assert [code for code, _ in found["Reason of the decision"]] == ["malignancy", "large-set"]
    assert found["Probabilities are calibrated"] == [("373066001", "SCT")]
    assert found["Algorithm Name"] == ["tiny"]
    assert found["Algorithm Version"] == ["3"]
    assert f"Model SHA-256: {ALGORITHM.digest}" in found["Algorithm Parameters"]
    assert found["Comment"] == ["A specialist has to look at this picture.", RESEARCH_USE_NOTICE]
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    (image,) = [item for item in items(report) if item.ValueType == "IMAGE"]
    reference = image.ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "ReferencedFrameNumber" not in reference


@pytest.mark.parametrize(
    ("label", "expected"),
    [("bkl", "Commonest diagnosis of the most probable class"), ("df", None)],
)
def test_a_code_claims_no_more_than_it_means(label: str, expected: str | None) -> None:
    predicted = CLASSES[LABELS.index(label)]
    found = meanings(make_report(make_source(), make_answer(predicted)))
    assert found["Most probable class"] == [(label, "99DERMHYBRID")]
    assert "Most probable class in SNOMED CT" not in found
    names = [name for name in found if name.startswith("Commonest")]
    assert names == ([expected] if expected else [])


def test_a_rejected_answer_has_a_report_without_classes() -> None:
    report = make_report(make_source(), REJECTED)
    found = meanings(report)
    assert found["Decision on the answer"] == [("reject", "99DERMHYBRID")]
    assert len(found["Reason of the decision"]) == len(Reason)
    assert found["Comment"][0] == "No answer is given for this picture."
    assert not [item for item in items(report) if item.ValueType == "NUM"]
    assert not [name for name in found if "robab" in name or "iagnos" in name]


def test_results_belong_to_the_photographs_study() -> None:
    photograph = make_dataset(
        InstanceNumber=7,
        PatientName="Müller^Jürgen",
        IssuerOfPatientID="Region North",
        IssuerOfPatientIDQualifiersSequence=[
            made_of(UniversalEntityID="1.2.276.0.76", UniversalEntityIDType="ISO")
        ],
    )
    source = take_over(read_object(to_bytes(photograph), DEFAULT_LIMITS))
    for result in (
        written(make_report(source, make_answer())),
        written(make_capture(source, make_answer(), OVERLAY, "Grad-CAM")),
    ):
        for keyword in (
            *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
            *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
            *("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
            *("ReferringPhysicianName", "InstanceNumber"),
        ):
            assert result[keyword].value == photograph[keyword].value, keyword
        assert result.SeriesInstanceUID != photograph.SeriesInstanceUID
        assert result.SOPInstanceUID != photograph.SOPInstanceUID
        assert "research" in result.SeriesDescription


def test_the_heatmap_is_the_overlay_above_its_caption() -> None:
    source = make_source()
    capture = written(make_capture(source, make_answer(frame=2), OVERLAY, "Grad-CAM of nv"))
    assert capture.SOPClassUID == SecondaryCaptureImageStorage
    pixels = capture.pixel_array
    np.testing.assert_array_equal(pixels[: OVERLAY.shape[0]], OVERLAY)
    strip = pixels[OVERLAY.shape[0] :]
    assert 0.01 < (strip > 128).mean() < 0.5
    assert capture.DerivationDescription == f"Grad-CAM of nv. {SHORT_NOTICE}"
    (reference,) = capture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedFrameNumber == 2


def test_a_heatmap_to_distrust_says_so_in_the_picture(tmp_path: Path) -> None:
    source, (warning,) = make_source(), warn_of([HeatmapFlag.OFF_LESION])
    plain = written(make_capture(source, make_answer(), OVERLAY, "Grad-CAM of nv"))
    flagged = make_capture(source, make_answer(), OVERLAY, "Grad-CAM of nv", [warning])
    assert warning == "Read nothing into it: little of it lies on the lesion."
    assert warning in flagged.DerivationDescription
    assert len(flagged.DerivationDescription) <= 1024  # of the value representation ST
    assert flagged.pixel_array.shape[0] > plain.pixel_array.shape[0]
    np.testing.assert_array_equal(
        flagged.pixel_array[: plain.pixel_array.shape[0]], plain.pixel_array
    )
    assert_valid(flagged, tmp_path / "flagged.dcm")


def test_the_same_answer_has_the_same_identifiers_and_another_one_has_not() -> None:
    source = make_source()

    def identifiers(
        source: Dataset, answer: ReportedAnswer, explained: str = "attention"
    ) -> tuple[str, str]:
        return (
            make_report(source, answer).SOPInstanceUID,
            make_capture(source, answer, OVERLAY, explained).SOPInstanceUID,
        )

    again = take_over(source)
    assert identifiers(source, make_answer()) == identifiers(again, make_answer())
    others = [
        identifiers(make_source(), make_answer()),
        identifiers(source, make_answer(action=Action.REPORT)),
        identifiers(source, make_answer(frame=2)),
        identifiers(source, make_answer(algorithm=Algorithm("tiny", 3, "cd" * 32, "x", "1"))),
        identifiers(source, make_answer(algorithm=Algorithm("tiny", 3, "ab" * 32, "x", "1"))),
    ]
    all_of_them = {uid for pair in [identifiers(source, make_answer()), *others] for uid in pair}
    assert len(all_of_them) == 12
    report, heatmap = identifiers(source, make_answer(), "Grad-CAM of mel")
    assert (report in all_of_them, heatmap in all_of_them) == (True, False)
    assert all(len(uid) <= 64 for uid in all_of_them)


def test_what_breaks_the_standard_is_not_taken_over(tmp_path: Path) -> None:
    photograph = make_dataset()
    photograph.PatientBirthDate, photograph.StudyTime = "long ago", "noon"
    photograph.PatientSex, photograph.AccessionNumber = "unknown", "x" * 17
    photograph.add_new("InstanceNumber", "LO", "first")
    source = take_over(read_object(to_bytes(photograph), DEFAULT_LIMITS))
    assert (source.PatientBirthDate, source.StudyTime, source.PatientSex) == ("", "", "")
    assert (source.AccessionNumber, source.InstanceNumber) == ("", 1)
    assert source.PatientName == PATIENT_NAME
    assert_valid(make_report(source, make_answer()), tmp_path / "report.dcm")


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID"])
@pytest.mark.parametrize("value", ["x" * 65, "4711\n", ["A", "B"]])
def test_results_are_filed_under_the_patient_or_not_at_all(keyword: str, value: object) -> None:
    dataset = read_object(to_bytes(make_dataset()), DEFAULT_LIMITS)
    dataset.add_new(keyword, "LO", value)
    with pytest.raises(ImageCorruptError, match=f"{keyword} is no text of at most 64"):
        take_over(dataset)


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID"])
def test_an_identifier_in_another_character_set_is_not_guessed(keyword: str) -> None:
    photograph = make_dataset()
    photograph.SpecificCharacterSet = "ISO_IR 192"
    setattr(photograph, keyword, "M0ller")
    data = to_bytes(photograph).replace(b"M0ller", b"M\xf8ller")
    with pytest.raises(ImageCorruptError, match=f"{keyword} is no text"):
        take_over(read_object(data, DEFAULT_LIMITS))


@pytest.mark.parametrize(
    ("ratio", "method", "expected"),
    [
        ("10.00", "ISO_10918_1", (10.0, "ISO_10918_1")),
        ("2.5\\10", "ISO_10918_1\\ISO_15444_1", ([2.5, 10.0], ["ISO_10918_1", "ISO_15444_1"])),
        ("10:1 ", "Roe Jane born 1970", (None, None)),
        ("nan ", "", (None, None)),
        ("-1", "ISO_10918_1", (None, "ISO_10918_1")),
    ],
)
def test_how_a_photograph_was_compressed_is_taken_over_where_it_can_be(
    ratio: str, method: str, expected: tuple[object, object], tmp_path: Path
) -> None:
    photograph = make_dataset(LossyImageCompression="01")
    photograph.add_new("LossyImageCompressionRatio", "LO", ratio)
    photograph.add_new("LossyImageCompressionMethod", "LO", method)
    data = to_bytes(photograph)
    for tag, kind in ((b"\x28\0\x12\x21", b"DS"), (b"\x28\0\x14\x21", b"CS")):
        data = data.replace(tag + b"LO", tag + kind)
    source = take_over(read_object(data, DEFAULT_LIMITS))
    found = (
        source.get("LossyImageCompressionRatio"),
        source.get("LossyImageCompressionMethod"),
    )
    assert found == expected
    heatmap = make_capture(source, make_answer(), OVERLAY, "Grad-CAM")
    assert_valid(heatmap, tmp_path / "heatmap.dcm")


def test_a_report_says_how_a_photograph_was_taken_only_where_its_class_does() -> None:
    dermoscopic, other = (
        make_report(make_source(SOPClassUID=sop_class), make_answer())
        for sop_class in (DermoscopicPhotographyImageStorage, VLPhotographicImageStorage)
    )
    assert meanings(dermoscopic)["Procedure reported"] == [("446078004", "SCT")]
    assert meanings(other)["Procedure reported"] != [("446078004", "SCT")]


@pytest.mark.parametrize("said", ["YES", "NO", None])
def test_a_heatmap_says_of_its_pixels_what_the_photograph_says(said: str | None) -> None:
    source = make_source(BurnedInAnnotation=said)
    capture = written(make_capture(source, make_answer(), OVERLAY, "Grad-CAM"))
    assert capture.get("BurnedInAnnotation") == said


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", "no uid", "1.2." + "3" * 70])
def test_a_photograph_without_identifiers_has_no_results(keyword: str, value: str) -> None:
    dataset = read_object(to_bytes(make_dataset()), DEFAULT_LIMITS)
    dataset.add_new(keyword, "LO", value)
    with pytest.raises(ImageCorruptError, match=f"{keyword} is missing or none"):
        take_over(dataset)
