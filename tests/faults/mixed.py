"""Thousands of requests of every kind, with faults among them: nothing is lost, memory is flat."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from tests.faults.client_faults import slow_clients
from tests.faults.injectors import corrupt, full, missing, resident_mb, starved, stopped
from tests.faults.ledger import Report
from tests.faults.model_faults import largest_file, reload
from tests.faults.pictures import Ask, batch, harmless, oversize, refused, valid
from tests.faults.service import Service
from tests.faults.stage import Stage
from tests.hostile_dicom import cut
from tests.hostile_dicom import refused as hostile_dicom

NUM_REQUESTS: Final = 10_000
CALLERS: Final = 16
MAX_BYTES: Final = 600_000
MAX_GROWTH: Final = 1.2
"""Of memory, from after the first fifth of the requests to the end."""

_QUICK_DICOM: Final = ("rows-huge", "samples-lie", "class-ct", "pixels-none", "jpeg-garbage")
_WEIGHTS: Final = {
    "valid": 24,
    "heatmap": 2,
    "batch": 3,
    "refused": 38,
    "harmless": 14,
    "dicom": 7,
    "oversize": 3,
    "hurried": 3,
    "left": 6,
}
"""Of a hundred requests."""


async def mixed(stage: Stage) -> Report:
    """Requests of every kind from callers who take turns, and a fault after each so many."""
    number = int(stage.scale(NUM_REQUESTS, 200))
    settings = {"MAX_PREDICTIONS_IN_PROGRESS": "14", "MAX_IMAGE_BYTES": str(MAX_BYTES)}
    async with stage.serve("mixed", {}, **settings) as service:
        faults = _faults(stage, service)
        done = (
            f"{number:,} requests of {CALLERS} callers, of every kind: pictures, batches, damaged "
            "and hostile files, too long ones, wrong types, deadlines that cannot be kept, callers "
            f"that leave; meanwhile {', '.join(faults)}"
        )
        async with service.fault(done) as report:
            memory = [resident_mb(service.pid)]
            with service.meanwhile(report):
                await _send(service, report, number, list(faults.values()), memory)
            await service.recover(report)
            memory.append(resident_mb(service.pid))
            report.notes["requests"] = number
            if not service.own_disk:
                report.notes["full disk"] = "skipped, a file system could not be mounted"
            report.notes["memory after each tenth, MB"] = memory
            settled = memory[2]
            report.notes["growth from a fifth of them on"] = round(memory[-1] / settled - 1, 3)
            if not stage.quick:
                report.expect(memory[-1] <= MAX_GROWTH * settled, f"memory grew: {memory}")
    return report


async def _send(
    service: Service,
    report: Report,
    number: int,
    faults: list[Callable[[Report], Awaitable[None]]],
    memory: list[int],
) -> None:
    chance = random.Random(7)  # noqa: S311
    kinds = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=number)
    dicom = [make() for name, make in hostile_dicom().items() if name in _QUICK_DICOM]
    dicom += list(cut().values())
    numbers = iter(range(number))
    injected: list[asyncio.Task[None]] = []
    every = max(1, number // len(faults))

    async def caller() -> None:
        for place in numbers:
            if place % every == every // 2:
                fault = faults[place // every % len(faults)]
                injected.append(asyncio.create_task(_one_by_one(fault, report, injected)))
            if place % max(1, number // 10) == 0 and place:
                memory.append(resident_mb(service.pid))
            await _ask(service, kinds[place], place, dicom)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    await asyncio.gather(*injected)


async def _one_by_one(
    fault: Callable[[Report], Awaitable[None]], report: Report, earlier: list[asyncio.Task[None]]
) -> None:
    own = asyncio.current_task()
    await asyncio.gather(*(task for task in earlier if task is not own and not task.done()))
    await fault(report)


async def _ask(service: Service, kind: str, place: int, dicom: list[bytes]) -> None:
    if kind == "left":
        asked = asyncio.create_task(service.ask(valid(place)))
        _, waiting = await asyncio.wait([asked], timeout=0.004 * (place % 5))
        for task in waiting:
            task.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    elif kind == "hurried":
        await service.ask(valid(place), **{"X-Request-Timeout": "0.002"})
    elif kind == "dicom":
        body = dicom[place % len(dicom)]
        await service.ask(Ask(body=body, content_type="application/dicom"))
    else:
        outcome = await service.ask(_make(kind, place))
        if outcome.whole.kind == "service-busy":
            await asyncio.sleep(0.25)  # a client would wait for longer


def _make(kind: str, place: int) -> Ask:
    match kind:
        case "batch":
            return batch(place)
        case "refused":
            return refused(place)
        case "harmless":
            return harmless(place)
        case "oversize":
            return oversize(MAX_BYTES)
        case _:
            return valid(place, heatmap=kind == "heatmap")


def _faults(stage: Stage, service: Service) -> dict[str, Callable[[Report], Awaitable[None]]]:
    """By what they are, in their order."""
    seconds = stage.scale(2, 0.3)

    async def reloaded(report: Report) -> None:
        await reload(service, "models served", report)

    async def paused(_report: Report) -> None:
        with stopped(service.pid):
            await asyncio.sleep(seconds)

    async def without_disk(_report: Report) -> None:
        with full(service.folder):
            await asyncio.sleep(seconds)

    async def with_slow_clients(_report: Report) -> None:
        async with slow_clients(service, 50):
            await asyncio.sleep(2 * seconds)

    async def without_model(report: Report) -> None:
        with missing(largest_file(stage.models)):
            await reload(service, "models refused", report)

    async def with_bad_model(report: Report) -> None:
        with corrupt(largest_file(stage.models)):
            await reload(service, "models refused", report)

    async def without_processor(_report: Report) -> None:
        with starved(gently=stage.quick):
            await asyncio.sleep(seconds)

    faults: dict[str, Callable[[Report], Awaitable[None]]] = {
        "a reload": reloaded,
        "a SIGSTOP": paused,
        "a full disk": without_disk,
        "slow clients": with_slow_clients,
        "a reload without a model's file": without_model,
        "another SIGSTOP": paused,
        "a taken processor": without_processor,
        "a reload of a damaged model": with_bad_model,
        "another full disk": without_disk,
        "another reload": reloaded,
    }
    if not service.own_disk:
        return {name: fault for name, fault in faults.items() if fault is not without_disk}
    return faults
