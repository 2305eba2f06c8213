"""The drawn pictures of the page are the ones that the command draws."""

import numpy as np
from PIL import Image

from tests.conftest import REPOSITORY
from training.examples import DRAWN, FOLDER, draw_example


def test_the_committed_examples_are_drawn_by_the_command() -> None:
    files = sorted((REPOSITORY / FOLDER).iterdir())
    assert [path.name for path in files] == sorted(f"drawn-{label}.jpg" for label in DRAWN)
    for label in DRAWN:
        picture = np.asarray(Image.open(REPOSITORY / FOLDER / f"drawn-{label}.jpg"), np.float64)
        drawn = draw_example(label).astype(np.float64)
        assert picture.shape == drawn.shape
        assert np.abs(picture - drawn).mean() < 8  # what JPEG lost
