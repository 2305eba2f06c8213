"""Overlays show what the map holds, where it holds it, and nothing else."""

import io

import numpy as np
import pytest
from PIL import Image

from app.domain.heatmaps import (
    MAX_OPACITY,
    Heatmap,
    HeatmapMethod,
    attention_heatmap,
    draw_overlay,
    encode_png,
    grad_cam_heatmap,
)
from training.synthetic import draw_lesion


def test_grad_cam_is_the_positive_part_of_its_class() -> None:
    activation = np.zeros((7, 7, 7), np.float32)
    activation[2, 1, 3], activation[2, 4, 4], activation[5, 0, 0] = 0.5, -2.0, 9.0
    heatmap = grad_cam_heatmap(activation, 2)
    expected = np.zeros((7, 7), np.float32)
    expected[1, 3] = 0.5
    np.testing.assert_array_equal(heatmap.values, expected)
    assert (heatmap.method, heatmap.class_index, heatmap.scale) == (
        HeatmapMethod.GRAD_CAM,
        2,
        0.5,
    )


def test_overlay_marks_the_right_place_and_leaves_the_rest() -> None:
    pixels = draw_lesion(1, 0, 350, 210)
    values = np.zeros((7, 7), np.float32)
    values[1, 5] = 1.0  # cell of rows 30 to 59, columns 250 to 299
    overlay = draw_overlay(pixels, Heatmap(HeatmapMethod.GRAD_CAM, 0, values, 1.0))
    assert overlay.shape == pixels.shape
    changed = np.abs(overlay.astype(int) - pixels).sum(axis=2)
    rows, columns = np.nonzero(changed > 30)
    assert 10 <= rows.min() < 45 < rows.max() <= 80
    assert 220 <= columns.min() < 275 < columns.max() <= 330
    np.testing.assert_array_equal(overlay[120:], pixels[120:])


def test_full_value_is_the_top_colour_at_the_stated_opacity() -> None:
    pixels = np.full((70, 70, 3), 100, np.uint8)
    heatmap = Heatmap(HeatmapMethod.ATTENTION, None, np.ones((7, 7), np.float32), 1.0)
    overlay = draw_overlay(pixels, heatmap)
    top_of_viridis = np.array([253, 231, 37])
    expected = top_of_viridis * MAX_OPACITY + 100 * (1 - MAX_OPACITY)
    assert np.abs(overlay - expected).max() <= 2


def test_flat_attention_stays_flat() -> None:
    pixels = draw_lesion(1, 0, 140, 140)
    flat = attention_heatmap(np.full((7, 7), 0.01, np.float32))
    assert flat.scale == np.float32(0.01)
    assert flat.class_index is None
    difference = draw_overlay(np.full_like(pixels, 90), flat).astype(int)
    assert np.ptp(difference.reshape(-1, 3), axis=0).max() <= 1


def test_no_evidence_leaves_the_picture_alone() -> None:
    pixels = draw_lesion(2, 1, 100, 90)
    heatmap = grad_cam_heatmap(np.full((7, 7, 7), -1.0, np.float32), 3)
    np.testing.assert_array_equal(draw_overlay(pixels, heatmap), pixels)


@pytest.mark.parametrize("size", [(600, 450), (113, 257)])
def test_png_holds_the_very_pixels(size: tuple[int, int]) -> None:
    pixels = draw_lesion(2, 1, *size)
    image = Image.open(io.BytesIO(encode_png(pixels)))
    assert image.size == size
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert not image.info
