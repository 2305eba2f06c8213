"""Wilson's interval against published values."""

import pytest

from app.domain.intervals import wilson


def test_wilsons_interval() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(29, 29)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)
