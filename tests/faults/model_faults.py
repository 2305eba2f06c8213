"""Faults of the models folder while the service answers from it."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults.injectors import corrupt, missing
from tests.faults.ledger import Report
from tests.faults.service import RECOVERY_SECONDS, Service
from tests.faults.stage import Stage

Damage = Callable[[Path], AbstractContextManager[None]]


async def model_vanishes(stage: Stage, service: Service) -> Report:
    """A file of a served model is gone when the models are reloaded."""
    done = "a file of the model was taken away under load and a reload asked for, then put back"
    return await _bad_reload(stage, service, done, missing)


async def model_corrupt(stage: Stage, service: Service) -> Report:
    """A bit of a served model has changed when the models are reloaded."""
    done = "a bit of the model's weights was flipped under load and a reload asked for, then back"
    return await _bad_reload(stage, service, done, corrupt)


async def _bad_reload(stage: Stage, service: Service, done: str, damage: Damage) -> Report:
    async with service.fault(done) as report:
        with service.meanwhile(report):
            async with service.callers(4):
                with damage(largest_file(stage.models)):
                    await reload(service, "models refused", report)
                    await asyncio.sleep(stage.scale(3, 0.3))
                await service.recover(report)
                await reload(service, "models served", report)
                await asyncio.sleep(stage.scale(3, 0.3))
        report.expect(set(report.seen) == {"200"}, f"callers noticed: {report.seen}")
    return report


def largest_file(models: Path) -> Path:
    """The weights of the first model."""
    files = (p for p in models.glob("*/*/variables/*") if p.is_file())
    return max(files, key=lambda p: (p.stat().st_size, str(p)))


async def reload(service: Service, message: str, report: Report) -> None:
    """Ask for one by SIGHUP, and wait until the log says what came of it."""
    before = service.log().count(message)
    service.process.send_signal(signal.SIGHUP)
    for _ in range(int(RECOVERY_SECONDS * 10)):
        if service.log().count(message) > before:
            return
        await asyncio.sleep(0.1)
    report.wrong.append(f"the log does not say {message!r}")
