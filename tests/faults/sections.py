"""All faults by name, in the order in which they are tried."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from tests.faults import client_faults, clock_faults, machine_faults, model_faults, peer_faults
from tests.faults.ledger import Report
from tests.faults.mixed import mixed
from tests.faults.service import Service
from tests.faults.stage import Stage

SHARED: Final[dict[str, Callable[[Stage, Service], Awaitable[Report]]]] = {
    "decompression bombs": client_faults.decompression_bombs,
    "slow loris": client_faults.slow_loris,
    "half-closed connections": client_faults.half_closed,
    "model file gone": model_faults.model_vanishes,
    "model file corrupt": model_faults.model_corrupt,
    "disk full": machine_faults.disk_full,
    "descriptors exhausted": machine_faults.descriptors_exhausted,
    "memory limit": machine_faults.memory_limit,
    "processor taken": machine_faults.starvation,
    "SIGSTOP": machine_faults.stop_and_continue,
    "SIGKILL": machine_faults.kill,
}
"""Tried on one process, one after the other: it survives them all, but for SIGKILL."""

ALONE: Final[dict[str, Callable[[Stage], Awaitable[Report]]]] = {
    "clock jump": clock_faults.clock_jump,
    "identity provider gone": peer_faults.identity_provider,
    "FHIR server gone": peer_faults.fhir_server,
    "archive gone": peer_faults.archive,
    "mixed requests": mixed,
}
"""Each needs a service with settings of its own."""

FAULTS: Final = (*SHARED, *ALONE)


def in_order(results: dict[str, Any]) -> dict[str, Any]:
    """What is by a fault's name, in the order of `FAULTS`."""
    return {name: results[name] for name in FAULTS if name in results}


async def inject(stage: Stage, names: Sequence[str]) -> AsyncIterator[tuple[str, Report]]:
    """Try some faults.

    Yields:
        Each one's name and report, when it has passed.
    """
    shared = [name for name in SHARED if name in names]
    if shared:
        async with stage.serve("service") as service:
            for name in shared:
                yield name, await SHARED[name](stage, service)
    for name in ALONE:
        if name in names:
            yield name, await ALONE[name](stage)
