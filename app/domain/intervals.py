"""Intervals of shares."""

import math
from typing import Final

_Z: Final = 1.959963984540054
"""Of the normal distribution: 95 % lie within that many standard deviations."""


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927).

    Args:
        hits: At most `total`.
        total: Independent observations; of none, nothing is known: (0, 1).
    """
    if not total:
        return 0.0, 1.0
    share, square = hits / total, _Z * _Z
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = share * (1 - share) / total + square / (4 * total * total)
    half = _Z * math.sqrt(spread) / (1 + square / total)
    return max(0.0, middle - half), min(1.0, middle + half)
