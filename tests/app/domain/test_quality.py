"""Each issue is named where a picture has it, and nowhere else."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.domain.images import RgbImage
from app.domain.quality import ACCEPTED, ISSUES, QualityIssue, assess_quality, find_issues
from app.domain.quality_scores import measure_quality

SKIN, LESION = (222, 168, 150), (120, 70, 55)


def good(centre: tuple[int, int] = (112, 112), radius: int = 38) -> RgbImage:
    """A sharp picture of textured skin with a lesion."""
    random = np.random.default_rng(5)
    picture = np.full((224, 224, 3), SKIN, np.float32)
    cv2.circle(picture, centre, radius, LESION, -1, cv2.LINE_AA)
    for scale, levels in ((1, 5.0), (4, 5.0)):
        coarse = random.normal(0, levels, (224 // scale, 224 // scale)).astype(np.float32)
        picture += cv2.resize(coarse, (224, 224), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def skin_alone() -> RgbImage:
    return np.clip(good(radius=0).astype(int) // 4 + np.array(SKIN) * 3 // 4, 0, 255).astype(
        np.uint8
    )


def times(*factors: float) -> RgbImage:
    return np.clip(good() * np.array(factors), 0, 255).astype(np.uint8)


def hairy() -> RgbImage:
    picture = good()
    for x in range(-100, 224, 12):
        cv2.line(picture, (x, 0), (x + 100, 223), (45, 30, 25), 2, cv2.LINE_AA)
    return picture


def inked(colour: tuple[int, int, int]) -> RgbImage:
    picture = good()
    cv2.circle(picture, (112, 112), 90, colour, 6, cv2.LINE_AA)
    return picture


def faded() -> RgbImage:
    picture = good().astype(np.float32)
    return (picture.mean(axis=(0, 1)) + (picture - picture.mean(axis=(0, 1))) / 8).astype(np.uint8)


def framed() -> RgbImage:
    """Seen through a tube that leaves black corners, as some real ones."""
    picture, tube = good(), np.zeros((224, 224), np.uint8)
    cv2.circle(tube, (112, 112), 118, 1, -1)
    picture[tube == 0] = 3
    return picture


BAD: dict[str, tuple[QualityIssue, Callable[[], RgbImage]]] = {
    "blurred": (QualityIssue.BLURRED, lambda: cv2.GaussianBlur(good(), (0, 0), 2.0)),  # type: ignore[dict-item, return-value]
    "moved": (QualityIssue.BLURRED, lambda: cv2.blur(good(), (15, 1))),  # type: ignore[dict-item, return-value]
    "too dark": (QualityIssue.TOO_DARK, lambda: times(0.4)),
    "too bright": (QualityIssue.TOO_BRIGHT, lambda: times(1.6)),
    "clipped": (QualityIssue.CLIPPED, lambda: times(1.3)),
    "low contrast": (QualityIssue.LOW_CONTRAST, faded),
    "blue": (QualityIssue.COLOUR_CAST, lambda: times(0.9, 1, 1.5)),
    "yellow": (QualityIssue.COLOUR_CAST, lambda: times(1, 1, 0.5)),
    "green": (QualityIssue.COLOUR_CAST, lambda: times(0.7, 1, 1)),
    "red": (QualityIssue.COLOUR_CAST, lambda: times(1, 0.5, 0.6)),
    "skin alone": (QualityIssue.NO_LESION, skin_alone),
    "at the edge": (QualityIssue.LESION_OUT_OF_FRAME, lambda: good((10, 112), 45)),
    "hair": (QualityIssue.HAIR, hairy),
    "violet ink": (QualityIssue.INK, lambda: inked((70, 40, 160))),
    "green ink": (QualityIssue.INK, lambda: inked((50, 140, 80))),
}


@pytest.mark.parametrize(
    "picture",
    [good(), good((100, 125), 25), good(radius=60), good()[::-1, ::-1].copy(), framed()],
    ids=["middle", "small", "large", "turned", "framed"],
)
def test_a_good_picture_has_no_issue(picture: RgbImage) -> None:
    report = assess_quality(picture, 600, 450)
    assert report.issues == ()
    assert set(report.scores) == set(ACCEPTED)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_named(name: str) -> None:
    issue, draw = BAD[name]
    assert issue in assess_quality(draw(), 600, 450).issues


def test_every_issue_is_tried() -> None:
    tried = {issue for issue, _ in BAD.values()} | {QualityIssue.LOW_RESOLUTION}
    assert tried == set(QualityIssue)


@pytest.mark.parametrize(("size", "low"), [((224, 300), False), ((300, 223), True)])
def test_resolution_is_the_files(size: tuple[int, int], low: bool) -> None:
    report = assess_quality(good(), *size)
    assert report.scores["shorter_side"] == min(size)
    assert (QualityIssue.LOW_RESOLUTION in report.issues) == low


def test_the_black_frame_is_neither_dark_nor_contrast() -> None:
    plain, seen = (measure_quality(p, 600, 450) for p in (good(), framed()))
    for name in ("brightness", "red_to_green", "blue_to_green"):
        assert seen[name] == pytest.approx(plain[name], rel=0.02)
    assert seen["contrast"] == pytest.approx(plain["contrast"], rel=0.25)


def test_a_range_includes_its_bounds() -> None:
    inside = {name: low if low is not None else high for name, (low, high) in ACCEPTED.items()}
    assert find_issues(inside) == ()
    for name, (low, high) in ACCEPTED.items():
        for bound, sign, issue in zip((low, high), (-1, 1), ISSUES[name], strict=True):
            assert (bound is None) == (issue is None), name
            if bound is not None:
                outside = bound + sign * (abs(bound) / 1e6 + 1e-9)
                assert find_issues(inside | {name: outside}) == (issue,)
    assert find_issues(dict.fromkeys(ACCEPTED)) == ()


def test_issues_are_in_order_and_each_once() -> None:
    green = times(0.25, 0.5, 0.2)  # both ratios are out
    found = assess_quality(green, 100, 100).issues
    assert QualityIssue.COLOUR_CAST in found
    assert list(found) == [issue for issue in QualityIssue if issue in found]


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_an_even_picture_is_no_picture(level: int) -> None:
    report = assess_quality(np.full((224, 224, 3), level, np.uint8), 600, 450)
    assert report.scores["lesion_offset"] is None
    assert {QualityIssue.BLURRED, QualityIssue.NO_LESION} <= set(report.issues)


def check_finite(picture: RgbImage) -> None:
    scores = measure_quality(picture, 600, 450)
    assert list(scores) == list(ACCEPTED)
    for name, value in scores.items():
        assert value is None or (type(value) is float and math.isfinite(value)), name
    assert scores["lesion_offset"] is None or 0 <= scores["lesion_offset"] <= 1.01
    assert all(0 <= (scores[name] or 0) <= 1 for name in ("clipped", "hair", "ink"))
    # The last digits of OpenCV's filters depend on where an array lies in memory.
    for name, again in measure_quality(picture.copy(), 600, 450).items():
        assert again == pytest.approx(scores[name]), name


@settings(max_examples=60, deadline=None)
@given(
    coarse=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    noise=st.integers(0, 60),
    smooth=st.booleans(),
)
def test_any_picture_has_finite_scores(coarse: RgbImage, noise: int, smooth: bool) -> None:
    way = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
    picture = cv2.resize(coarse, (224, 224), interpolation=way).astype(np.int64)
    picture += np.random.default_rng(0).integers(-noise, noise + 1, (224, 224, 3))
    check_finite(np.clip(picture, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_specks_have_finite_scores(seed: int) -> None:
    random = np.random.default_rng(seed)
    check_finite(random.integers(0, 256, (224, 224, 3), np.uint8))
    black = np.zeros((224, 224, 3), np.uint8)
    black[110:114, 110:114] = 255  # all but a speck is frame
    check_finite(black)
    check_finite(255 - black)
