"""The service under a fault: its process, its callers, and when it is itself again."""

import asyncio
import io
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from app.audit_chain import verify
from tests.faults.injectors import resident_mb
from tests.faults.ledger import LEFT, LOST, Ledger, Outcome, Part, Report
from tests.faults.pictures import Ask, valid
from tests.service_process import service_process

CLIENT_TIMEOUT: Final = 4.0
"""CLIENT_TIMEOUT_SECONDS, shorter than its default so that its end is seen."""

STOP_SECONDS: Final = 120.0
RECOVERY_SECONDS: Final = 120.0
_URN: Final = "urn:dermhybrid:problem:"


def bearer(credential: str) -> dict[str, str]:
    """The header of an API key or a token."""
    return {"Authorization": f"Bearer {credential}"}


class Service:
    """A running service and the ledger of all that it was asked.

    Attributes:
        ledger: What became of each request.
        folder: Its log, its records and its temporary files.
        own_disk: Whether they are on a file system of their own, which can be filled.
        session: What requests are sent by.
        strangers: The same, with a new connection for each.
        headers: Of every request.
    """

    session: aiohttp.ClientSession
    strangers: aiohttp.ClientSession

    def __init__(self, folder: Path, settings: dict[str, str], *, own_disk: bool) -> None:
        (folder / "tmp").mkdir(exist_ok=True)
        self.own_disk = own_disk
        self.ledger, self.folder = Ledger(), folder
        self.audit = Path(settings.get("AUDIT_DIR", folder / "audit"))
        self._settings = {
            "RUNTIME": "openvino",
            "AUDIT_DIR": str(self.audit),
            "TMPDIR": str(folder / "tmp"),
            # Drawn pictures are to be answered, not told from dermatoscopic ones.
            "OUT_OF_DISTRIBUTION_GATE": "advise",
            "CLIENT_TIMEOUT_SECONDS": f"{CLIENT_TIMEOUT:g}",
            "AUDIT_MAX_FILE_BYTES": "50000",  # so that files are begun under every fault
            **settings,
        }
        self._running = ExitStack()
        self._num_starts = 0
        self._fault_ended: int | None = None
        self._reported: set[str] = set()
        self.headers: dict[str, str] = {}

    async def start(self) -> None:
        """Start it, again where it has ended."""
        self._num_starts += 1
        log = self.folder / f"service-{self._num_starts}.log"
        process = service_process(log, self._settings, STOP_SECONDS)
        self.process, self.address = await asyncio.to_thread(self._running.enter_context, process)

    def stop(self) -> None:
        """As an operator would."""
        self._running.close()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self.address.rpartition(":")[2])

    def log(self) -> str:
        """All that it wrote."""
        return "".join(p.read_text(errors="replace") for p in self.folder.glob("service-*.log"))

    async def ask(self, ask: Ask, **headers: str) -> Outcome:
        """Send a request and note how it ended."""
        outcome, _ = await self.ask_for(ask, **headers)
        return outcome

    async def ask_for(self, ask: Ask, **headers: str) -> tuple[Outcome, bytes]:
        """The same, with the answer's body."""
        identifier = uuid.uuid4().hex
        self.ledger.sent.add(identifier)
        sent = {**self.headers, **ask.headers, **headers, "X-Request-ID": identifier}
        if ask.body is not None:
            sent["Content-Type"] = ask.content_type
        method, started = "GET" if ask.body is None else "POST", time.perf_counter()
        lines: dict[int, Part] = {}
        body = b""
        session = self.strangers if ask.anew else self.session
        try:
            async with session.request(
                method, self.address + ask.path, data=_payload(ask.body), headers=sent
            ) as answer:
                body = await answer.read()
                whole = Part(answer.status, _kind(answer.status, body))
                # What comes too early for one has none.
                own = identifier if answer.status == 503 else None
                if answer.headers.get("X-Request-ID", own) != identifier:
                    self.ledger.wrong.append(f"{identifier} got the answer of another request")
                if answer.status == 200 and ask.pictures:
                    lines = self._check(ask, body, identifier)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            whole = Part(LOST)
        except asyncio.CancelledError:
            self.ledger.add(Outcome(identifier, Part(LEFT), predicts=ask.predicts))
            raise
        seconds = time.perf_counter() - started
        outcome = Outcome(identifier, whole, seconds, lines, ask.predicts)
        self.ledger.add(outcome)
        return outcome, body

    async def end_with(self, credential: str) -> str:
        """How a picture's request ends that is sent with an API key or a token."""
        return (await self.ask(valid(1), **bearer(credential))).whole.name

    def _check(self, ask: Ask, body: bytes, identifier: str) -> dict[int, Part]:
        """Compare answers with earlier ones; gives the ends of a batch's images."""
        if not ask.path.startswith("/predict/batch"):
            answer = json.loads(body)
            if answer["request_id"] != identifier:
                self.ledger.wrong.append(f"{identifier} has the answer of another request")
            self.ledger.check_answer(str(ask.pictures[0]), answer["probabilities"])
            return {}
        lines = [json.loads(line) for line in body.splitlines()]
        if sorted(line["index"] for line in lines) != list(range(len(ask.pictures))):
            self.ledger.wrong.append(f"{identifier}: not one line for each image")
        for line in lines:
            picture = ask.pictures[line["index"]]
            if line["status"] == 200 and picture is not None:
                self.ledger.check_answer(picture, line["answer"]["probabilities"])
        return {
            line["index"]: Part(line["status"], _kind_of(line.get("problem"))) for line in lines
        }

    @asynccontextmanager
    async def callers(self, number: int, ask: Callable[[int], Ask] = valid) -> AsyncIterator[None]:
        """Callers who each ask again when they are answered, until the block ends."""
        ended = False

        async def call(first: int) -> None:
            count = first
            while not ended:
                outcome = await self.ask(ask(count))
                count += number
                if outcome.whole.status != 200:  # as clients do, rather than at once
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(call(first)) for first in range(number)]
        try:
            yield
        finally:
            ended = True
            await asyncio.gather(*tasks)

    async def recover(self, report: Report, again: Ask | None = None) -> None:
        """Measure from now, the end of a fault, to the first right answer and to readiness.

        Args:
            report: Gets both.
            again: What is asked; a picture where it is None.
        """
        started = time.perf_counter()

        async def until(ask: Ask) -> float | None:
            while time.perf_counter() - started < RECOVERY_SECONDS:
                if (await self.ask(ask)).whole.status == 200:
                    return round(time.perf_counter() - started, 3)
                await asyncio.sleep(0.02)
            return None

        report.ready_seconds, report.recovery_seconds = await asyncio.gather(
            until(Ask("/health/ready")), until(again or valid(0))
        )
        report.expect(report.recovery_seconds is not None, "no right answer any more")
        report.expect(report.ready_seconds is not None, "not ready any more")

    @asynccontextmanager
    async def fault(self, done: str) -> AsyncIterator[Report]:
        """The report of a fault that the block injects and sees the end of.

        Args:
            done: The fault, in a sentence.
        """
        if self.process.poll() is not None:
            await self.start()
        report = Report(done, resident_mb=[resident_mb(self.pid)])
        first, self._fault_ended = len(self.ledger.outcomes), None
        before = self._num_unread()
        yield report
        report.resident_mb.append(resident_mb(self.pid))
        if self._fault_ended is None:
            report.seen = self.ledger.counts(first)
        else:
            report.later = self.ledger.counts(self._fault_ended)
        outcomes = list(self.ledger.outcomes.values())[first:]
        report.lost += sum(outcome.whole.status == LOST for outcome in outcomes)
        if unread := self._num_unread() - before:
            report.notes["connections that could not be read for want of memory"] = unread
        report.expect(report.lost <= unread, f"{report.lost} requests got no answer")
        report.notes["answers, each with its record"] = sum(len(one.answers) for one in outcomes)
        found = [*self.ledger.wrong, *self.ledger.find_undocumented(), *verify(self.audit)]
        found += self.ledger.find_unrecorded(self.audit)
        report.wrong += [sentence for sentence in found if sentence not in self._reported]
        self._reported.update(found)

    @contextmanager
    def meanwhile(self, report: Report) -> Iterator[None]:
        """While the fault lasts: what ends inside is what callers saw of it."""
        first = len(self.ledger.outcomes)
        yield
        report.seen = self.ledger.counts(first)
        self._fault_ended = len(self.ledger.outcomes)

    async def until_seen(self, name: str) -> None:
        """Wait until one more request has ended in a way, as it is counted."""
        before, started = self.ledger.counts().get(name, 0), time.perf_counter()
        while time.perf_counter() - started < RECOVERY_SECONDS:
            if self.ledger.counts().get(name, 0) > before:
                return
            await asyncio.sleep(0.05)

    def leave(self) -> str:
        """The identifier of a request that is sent by hand, and not waited for."""
        identifier = uuid.uuid4().hex
        self.ledger.sent.add(identifier)
        self.ledger.add(Outcome(identifier, Part(LEFT)))
        return identifier

    def _num_unread(self) -> int:
        """Connections that the event loop ended: it had no memory for what they had sent.

        Nothing of the service is asked then. The log has a line of each, so that no other loss
        can hide behind them.
        """
        marks = ("Fatal error on transport", "__uv_stream_on_read_impl", "MemoryError")
        return sum(all(mark in line for mark in marks) for line in self.log().splitlines())

    def in_log(self, identifier: str) -> bool:
        """Whether the service ever began a request."""
        return f'"{identifier}"' in self.log()


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """A body as the client wants it: a large one as a file."""
    return io.BytesIO(body) if body is not None and len(body) > 1 << 19 else body


def _kind(status: int, body: bytes) -> str:
    if status < 400:
        return ""
    try:
        return _kind_of(json.loads(body))
    except ValueError:
        return "no-problem-details"


def _kind_of(problem: dict[str, Any] | None) -> str:
    if problem is None:
        return ""
    if problem.get("resourceType") == "OperationOutcome":
        try:
            return str(problem["issue"][0]["details"]["coding"][0]["code"])
        except (KeyError, IndexError, TypeError):
            return "no-problem-details"
    return str(problem.get("type", "")).removeprefix(_URN)
