"""Faults of callers: bombs, slow loris, half-closed connections, slow readers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.faults.injectors import forget_peak, num_descriptors, peak_mb, resident_mb
from tests.faults.ledger import Report
from tests.faults.pictures import Ask, bombs, jpeg
from tests.faults.service import CLIENT_TIMEOUT, Service
from tests.faults.stage import Stage
from tests.hostile_dicom import refused as hostile_dicom

BODY_SECONDS: Final = 6.0
"""For the whole of a body that comes slowly."""

DRIP_SECONDS: Final = 4 * (BODY_SECONDS + CLIENT_TIMEOUT)
"""By then even a busy machine has closed what never ends."""
SETTLE_SECONDS: Final = 60.0
"""For the last descriptor to be closed."""

_DICOM: Final = {
    "deflated-bomb": "422 image-corrupt",
    "jpeg-bomb": "422 image-corrupt",
    "jpeg-bomb-declared": "422 image-too-many-pixels",
    "runs-bomb": "422 image-corrupt",
}
"""Bombs in DICOM, and how a request with them must end."""

_HEAD: Final = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"


async def decompression_bombs(stage: Stage, service: Service) -> Report:
    """Files that unfold to far more than they are."""
    files, makers = bombs(), hostile_dicom()
    files |= {f"DICOM, {name}": (makers[name](), end) for name, end in _DICOM.items()}
    rounds = int(stage.scale(10, 1))
    done = (
        f"{len(files)} kinds of bombs, PNG, JPEG, BMP, TIFF and DICOM, each {rounds} times, "
        "between other callers' pictures"
    )
    async with service.fault(done) as report:
        forget_peak(service.pid)
        with service.meanwhile(report):
            async with service.callers(2):
                sent = [
                    (
                        name,
                        expected,
                        await service.ask(Ask(body=body, content_type="application/octet-stream")),
                    )
                    for _ in range(rounds)
                    for name, (body, expected) in files.items()
                ]
        report.notes["largest memory meanwhile, MB"] = peak_mb(service.pid)
        report.notes["slowest answer to one, seconds"] = round(
            max(one.seconds for *_, one in sent), 2
        )
        for name, expected, one in sent:
            report.expect(
                one.whole.name == expected, f"{name}: {one.whole.name} in place of {expected}"
            )
        await service.recover(report)
    return report


async def slow_loris(stage: Stage, service: Service) -> Report:
    """Connections that never finish what they begin."""
    number = int(stage.scale(500, 40))
    done = (
        f"{number} connections send the head of a request byte by byte, as many the body, "
        "which says that it is longer, while others ask"
    )
    async with service.fault(done) as report:
        before = num_descriptors(service.pid)
        with service.meanwhile(report):
            async with service.callers(2):
                started = time.perf_counter()
                closed = await asyncio.gather(
                    *(_drip(service, _HEAD, b"x-a: b\r\n") for _ in range(number)),
                    *(_drip(service, _head(service, 9999), b"x") for _ in range(number)),
                )
                seconds = time.perf_counter() - started
        report.expect(
            all(closed), f"{closed.count(False)} were not closed within {DRIP_SECONDS:g} s"
        )
        report.expect(report.seen.get("200"), "no other caller was answered")
        report.notes["the last of them was closed after, seconds"] = round(seconds, 1)
        await service.recover(report)
        await _settle(service, report, before)
    return report


async def half_closed(stage: Stage, service: Service) -> Report:
    """Connections whose caller says that it sends nothing more, or resets them."""
    number = int(stage.scale(300, 30))
    done = (
        f"{number} times each: closed for writing after half a body, closed for writing after "
        "a whole request, reset in the middle of the answer, and an answer that is not read"
    )
    async with service.fault(done) as report:
        before, whole = num_descriptors(service.pid), jpeg(1)
        with service.meanwhile(report):
            async with service.callers(2):
                gate = asyncio.Semaphore(50)
                answered = await asyncio.gather(
                    *(
                        end
                        for _ in range(number)
                        for end in (
                            _half_close(service, gate, whole[: len(whole) // 2], len(whole)),
                            _half_close(service, gate, whole, len(whole)),
                            _reset(service, gate, whole),
                            _unread(service, gate),
                        )
                    )
                )
        report.expect(report.seen.get("200"), "no other caller was answered")
        report.notes["answered although closed for writing"] = sum(answered)
        await service.recover(report)
        await _settle(service, report, before)
    return report


@asynccontextmanager
async def slow_clients(service: Service, number: int) -> AsyncIterator[None]:
    """Some connections that drip while the block lasts."""
    tasks = [asyncio.create_task(_drip(service, _HEAD, b"x-a: b\r\n")) for _ in range(number)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _head(service: Service, length: int) -> bytes:
    more = f"X-Request-ID: {service.leave()}\r\nX-Request-Timeout: {BODY_SECONDS:g}\r\n"
    return _HEAD + f"{more}Content-Length: {length}\r\n\r\n".encode()


async def _drip(service: Service, begin: bytes, piece: bytes) -> bool:
    """A piece at a time until the service has had enough; whether it had."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        async with asyncio.timeout(DRIP_SECONDS):
            writer.write(begin)
            while not reader.at_eof():
                writer.write(piece)
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(65536), CLIENT_TIMEOUT / 4)
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    finally:
        writer.close()
    return True


async def _half_close(
    service: Service, gate: asyncio.Semaphore, body: bytes, announced: int
) -> bool:
    """Send, close for writing, and read whatever comes; whether it is an answer."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        try:
            writer.write(_head(service, announced) + body)
            writer.write_eof()
            return (await reader.read()).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False
        finally:
            writer.close()


async def _reset(service: Service, gate: asyncio.Semaphore, body: bytes) -> bool:
    """Send, wait for the first byte of the answer, and break off."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        try:
            writer.write(_head(service, len(body)) + body)
            await reader.read(1)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
    return False


async def _unread(service: Service, gate: asyncio.Semaphore) -> bool:
    """Ask for more than the buffers take, and read none of it."""
    async with gate:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=1024)
        try:
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            await asyncio.sleep(CLIENT_TIMEOUT / 4)
        finally:
            writer.transport.abort()
    return False


async def _settle(service: Service, report: Report, before: int) -> None:
    """Nothing of them is left: neither descriptors nor places in line."""
    started = time.perf_counter()
    while True:
        left, held = num_descriptors(service.pid) - before, await _num_in_flight(service)
        if (left <= 2 and held == 1) or time.perf_counter() - started > SETTLE_SECONDS:
            break
        await asyncio.sleep(0.1)
    report.notes["descriptors more than before"] = max(0, left)
    report.expect(left <= 2, f"{left} descriptors are still open")
    report.notes["memory, MB"] = resident_mb(service.pid)
    report.expect(held == 1, f"{held} requests are still held; the one that asks is 1")


async def _num_in_flight(service: Service) -> int:
    async with service.session.get(f"{service.address}/metrics") as answer:
        text = await answer.text()
    line = next(
        line for line in text.splitlines() if line.startswith("dermhybrid_http_requests_in_flight ")
    )
    return int(float(line.split()[1]))
