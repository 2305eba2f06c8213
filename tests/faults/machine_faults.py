"""Faults of the machine: disk, memory, descriptors, processor, stops and kills."""

import asyncio
import resource
import signal
import statistics
import time
from dataclasses import replace
from typing import Final

import psutil

from tests.faults.injectors import (
    full,
    limited,
    num_descriptors,
    starved,
    stopped,
)
from tests.faults.ledger import LOST, Report
from tests.faults.pictures import Ask, huge, large, valid
from tests.faults.service import Service
from tests.faults.stage import Stage

SPARE_MB: Final = 100
PROBE_SECONDS: Final = 5.0
"""`timeoutSeconds` of the liveness probe in deploy/kubernetes."""


async def disk_full(stage: Stage, service: Service) -> Report:
    """No room for records, uploads and the log."""
    seconds = stage.scale(10, 1.5)
    done = (
        f"the file system of audit log, temporary files and log was full for {seconds:g} s"
        if service.own_disk
        else f"files could not grow for {seconds:g} s (a file system could not be mounted)"
    )
    async with service.fault(done) as report:
        with service.meanwhile(report):
            async with service.callers(2), service.callers(1, large):
                size = max(service.audit.glob("audit-*")).stat().st_size
                no_room = (
                    full(service.folder)
                    if service.own_disk
                    else limited(service.pid, resource.RLIMIT_FSIZE, size)
                )
                with no_room:
                    await service.until_seen("503 audit-unavailable")
                    await asyncio.sleep(seconds)
                await service.recover(report)
        refused = report.seen.get("503 audit-unavailable", 0)
        report.expect(refused, "nobody was told that records cannot be written")
    return report


async def memory_limit(stage: Stage, service: Service) -> Report:
    """The process may not have much more memory than it has."""
    seconds = stage.scale(10, 1)
    done = (
        f"for {seconds:g} s the process got {SPARE_MB} MB at most beyond what it had (RLIMIT_AS), "
        "while pictures came that take 135 MB to decode, between small ones"
    )
    async with service.fault(done) as report:
        with service.meanwhile(report):
            async with service.callers(2), service.callers(1, huge):
                used = psutil.Process(service.pid).memory_info().vms
                with limited(service.pid, resource.RLIMIT_AS, used + SPARE_MB * 1_000_000):
                    await service.until_seen("503 resources-exhausted")
                    await asyncio.sleep(seconds)
                await service.recover(report)
        refused = report.seen.get("503 resources-exhausted", 0)
        report.expect(refused, "nobody was told that there is no memory")
    return report


async def descriptors_exhausted(stage: Stage, service: Service) -> Report:
    """Connections that do nothing take every descriptor."""
    spare, first = 64, len(service.ledger.outcomes)
    done = (
        f"the process could open {spare} files more (RLIMIT_NOFILE), and idle connections took "
        "them all, again and again; records needed new files "
        "meanwhile"
    )
    async with service.fault(done) as report:
        with service.meanwhile(report):
            async with service.callers(2), service.callers(1, large):
                await asyncio.sleep(0.5)
                limit = num_descriptors(service.pid) + spare
                with limited(service.pid, resource.RLIMIT_NOFILE, limit):
                    idle = [
                        await asyncio.open_connection("127.0.0.1", service.port)
                        for _ in range(3 * spare)
                    ]
                    await asyncio.sleep(stage.scale(6, 2))
                    new = await asyncio.gather(
                        *(service.ask(replace(valid(n), anew=True)) for n in range(4))
                    )
                    for _, writer in idle:
                        writer.close()
                await service.recover(report)
        refused = sum(outcome.whole.status == LOST for outcome in new)
        report.notes[f"of {len(new)} new connections, refused"] = refused
        report.expect(
            refused or report.seen.get("503 resources-exhausted"),
            "nobody noticed that there are no descriptors",
        )
        report.lost -= sum(
            not outcome.whole.status and not service.in_log(outcome.identifier)
            for outcome in list(service.ledger.outcomes.values())[first:]
        )
    return report


async def starvation(stage: Stage, service: Service) -> Report:
    """Other programs take the processor."""
    seconds, times = stage.scale(15, 2), []
    async with service.fault("") as report:
        with service.meanwhile(report), starved(gently=stage.quick) as how:
            report.done = f"{how} for {seconds:g} s"
            async with service.callers(4):
                started = time.perf_counter()
                while time.perf_counter() - started < seconds:
                    times.append((await service.ask(Ask("/health/live"))).seconds)
                    await asyncio.sleep(0.1)
        await service.recover(report)
        report.notes["/health/live, median seconds"] = round(statistics.median(times), 3)
        report.notes["/health/live, slowest"] = round(max(times), 3)
        late = sum(one > PROBE_SECONDS for one in times)
        report.notes[f"of {len(times)} such probes, slower than {PROBE_SECONDS:g} s"] = late
    return report


async def stop_and_continue(stage: Stage, service: Service) -> Report:
    """SIGSTOP with requests in flight."""
    seconds, number = stage.scale(10, 3), int(stage.scale(40, 24))
    done = (
        f"SIGSTOP for {seconds:g} s while {number} requests were in flight, half of them with "
        f"a deadline of {seconds / 2:g} s; {number} more came during the stop"
    )
    hurry = {"X-Request-Timeout": f"{seconds / 2:g}"}
    async with service.fault(done) as report:
        with service.meanwhile(report):
            asked = [
                asyncio.create_task(service.ask(valid(n, heatmap=True), **(hurry if n % 2 else {})))
                for n in range(number)
            ]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            with stopped(service.pid):
                later = [asyncio.create_task(service.ask(valid(n))) for n in range(number)]
                await asyncio.sleep(seconds)
            await service.recover(report)
            await asyncio.gather(*asked, *later)
        report.expect(report.seen.get("504 deadline-exceeded"), "no deadline was kept")
        patient = {task.result().whole.status for task in [*asked[::2], *later]}
        report.expect(patient == {200}, "a request within its deadline was refused")
    return report


async def kill(stage: Stage, service: Service) -> Report:
    """SIGKILL in the middle of writing, again and again, and a new start."""
    rounds = int(stage.scale(2, 1))
    done = (
        f"SIGKILL {rounds} times with 64 requests in flight, and a new start with the same "
        "audit log"
    )
    async with service.fault(done) as report:
        with service.meanwhile(report):
            starts, cut = [], 0
            for _ in range(rounds):
                tasks = [asyncio.create_task(service.ask(valid(n))) for n in range(64)]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                service.process.send_signal(signal.SIGKILL)
                service.process.wait()
                killed = time.perf_counter()
                ends = await asyncio.gather(*tasks)
                cut += sum(outcome.whole.status == LOST for outcome in ends)
                await service.start()
                await service.recover(report)
                starts.append(round(time.perf_counter() - killed, 1))
        report.notes["from the kill to a right answer, seconds"] = starts
        report.expect(cut, "the kill cut nobody off")
        report.notes["cut off by the kill, their callers saw the connection end"] = cut
        report.lost -= cut
    return report
