"""The index of drift is what its definition says, and stays quiet by chance."""

import numpy as np
import pytest

from app.domain.drift import WINDOW_ANSWERS, ClassWindow, population_stability_index
from app.domain.labels import LABELS

BEFORE = [65, 103, 220, 23, 223, 1341, 29]


def test_it_is_zero_for_the_same_and_the_published_formula_otherwise() -> None:
    assert population_stability_index(BEFORE, BEFORE) == 0.0
    doubled = [2 * count for count in BEFORE]
    assert population_stability_index(doubled, BEFORE) == pytest.approx(0.0, abs=1e-4)
    # 0.5/0.5 against 0.8/0.2, by hand: 0.3 ln(0.8/0.5) + 0.3 ln(0.5/0.2).
    assert population_stability_index([5e6, 5e6], [8e6, 2e6]) == pytest.approx(0.41589, abs=1e-4)


def test_chance_is_below_and_a_shift_above_the_bounds_of_the_alert() -> None:
    generator = np.random.default_rng(1)
    shares = np.array(BEFORE) / sum(BEFORE)
    found = [
        population_stability_index(list(generator.multinomial(WINDOW_ANSWERS, shares)), BEFORE)
        for _ in range(1000)
    ]
    assert max(found) < 0.1
    shifted = shares * [1, 1, 1, 1, 4, 0.5, 1]
    shifted /= shifted.sum()
    assert population_stability_index(list(1000 * shifted), BEFORE) > 0.25


def test_the_window_slides() -> None:
    window = ClassWindow(np.diag(BEFORE).tolist(), size=20)
    for _ in range(30):
        shifted = window.add("mel")
    assert window.num_answers == 20
    twenty_melanomas = [20.0 * (label == "mel") for label in LABELS]
    assert shifted == pytest.approx(population_stability_index(twenty_melanomas, BEFORE))
    for label in ["nv"] * 13 + ["mel"] * 2 + ["bkl"] * 2 + ["bcc"] * 1 + ["vasc", "akiec"]:
        back = window.add(label)
    assert back < 0.2 < shifted
