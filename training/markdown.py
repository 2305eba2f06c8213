"""Tables and intervals as Markdown, for pages, reports and cards."""

from app.domain.measurements import Interval


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def in_words(interval: Interval, digits: int) -> str:
    """A value and its 95 % interval, `0.82 (0.80 to 0.84)`."""
    value, low, high = (f"{v:.{digits}f}" for v in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"
