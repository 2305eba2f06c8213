"""A caller gets its share, and no other caller's."""

import pytest

from app.access import quota as quota_module
from app.access.quota import Quota
from app.domain.errors import QuotaExceededError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_empties_and_fills_at_its_rate(clock: Clock) -> None:
    quota = Quota(60, 3, clock)
    for _ in range(3):
        quota.take("a")
    with pytest.raises(QuotaExceededError, match="60 images") as refused:
        quota.take("a")
    assert refused.value.retry_after_seconds == pytest.approx(1.0)
    quota.take("b")
    clock.now += 0.75
    with pytest.raises(QuotaExceededError) as refused:
        quota.take("a")
    assert refused.value.retry_after_seconds == pytest.approx(0.25)
    clock.now += 0.25
    quota.take("a")
    clock.now += 3600
    for _ in range(3):  # never more than the burst
        quota.take("a")
    with pytest.raises(QuotaExceededError):
        quota.take("a")


def test_a_batch_is_paid_for_afterwards(clock: Clock) -> None:
    quota = Quota(60, 3, clock)
    quota.take("a")
    quota.charge("a", 63)
    with pytest.raises(QuotaExceededError) as refused:
        quota.take("a")
    assert refused.value.retry_after_seconds == pytest.approx(62.0)


def test_callers_at_random_do_not_fill_the_memory(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_module, "MAX_CALLERS", 10)
    quota = Quota(60, 1, clock)
    for number in range(100):
        quota.take(f"caller-{number}")
    assert len(quota._buckets) == 10
    with pytest.raises(QuotaExceededError):
        quota.take("caller-99")
