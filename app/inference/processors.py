"""How many processors this process may use, where a container has fewer than its machine."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def available_processors(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Count the processors that this process may use.

    Those that it may run on, or as many as the quota of its control groups makes where that is
    less (`docker run --cpus`, a limit in Kubernetes), rounded up. More threads than that would use
    the quota up early in each period, and stand still for the rest of it.

    Args:
        cgroups: Where the control groups are mounted, of version 1 or 2.
        membership: Says which of them this process is in (`man 7 cgroups`).

    Returns:
        At least 1.
    """
    processors = float(len(os.sched_getaffinity(0)))
    for quota in _quotas(cgroups, membership):
        processors = min(processors, quota)
    return max(1, math.ceil(processors))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Of the process's group and of those around it, as far as they can be seen."""
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        group = Path(path.lstrip("/"))
        # In a container, the path may be the machine's and the mount the container's own group.
        for inner in (group, *group.parents):
            if number == "0":
                yield from _read(cgroups / inner, "cpu.max")
            elif "cpu" in controllers.split(","):
                yield from _read(cgroups / "cpu" / inner, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _read(group: Path, *names: str) -> Iterator[float]:
    """The quota by its period; nothing where there is none."""
    try:
        values = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
    except OSError:
        return
    if values[0] not in ("max", "-1"):
        yield float(values[0]) / float(values[1])
