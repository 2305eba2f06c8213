"""Faults of the time of day: it jumps ahead and back."""

import asyncio
import json

from app.access.keys import create_key
from app.access.scopes import Scope
from tests.faults.injectors import FAKETIME, Clock
from tests.faults.ledger import Report
from tests.faults.pictures import valid
from tests.faults.service import Service, bearer
from tests.faults.stage import Stage
from tests.issuer import AUDIENCE, ISSUER, Issuer, write_jwks


async def clock_jump(stage: Stage) -> Report:
    """The time of day is set a day ahead, then an hour back."""
    if FAKETIME is None:
        return Report("", skipped="libfaketime is not installed (Debian's package faketime)")
    clock, keys = Clock(FAKETIME, stage.folder / "time"), stage.folder / "keys.jsonl"
    issuer = Issuer()
    key = create_key(keys, "always", [Scope.PREDICT], None)
    settings = {
        "API_KEYS_FILE": str(keys),
        "OAUTH_ISSUER": ISSUER,
        "OAUTH_AUDIENCE": AUDIENCE,
        "OAUTH_JWKS": str(write_jwks(stage.folder / "jwks.json", issuer)),
        "QUOTA_PER_MINUTE": "1",
        **clock.environment,
    }
    async with stage.serve("clock", bearer(key), **settings, QUOTA_BURST="100000") as service:
        token = issuer.token("user/DiagnosticReport.c")
        report = await _jump(stage, service, clock, token)
    poor = create_key(keys, "poor", [Scope.PREDICT], None)
    async with stage.serve("quota", bearer(key), **settings, QUOTA_BURST="12") as service:
        await _spend(service, clock, poor, report)
    return report


async def _jump(stage: Stage, service: Service, clock: Clock, token: str) -> Report:
    """Deadlines and quotas do not go by it; tokens do, and records have it."""
    done = "the time of day jumped a day ahead, then to an hour before the true one, and back"
    async with service.fault(done) as report:
        with service.meanwhile(report):
            async with service.callers(2):
                report.notes["token at the true time"] = await service.end_with(token)
                for offset in ("+1d", "-1h"):
                    clock.set(offset)
                    await asyncio.sleep(stage.scale(5, 0.5))
                    found = await service.end_with(token)
                    report.notes[f"token of five minutes at {offset}"] = found
                    report.expect(found == "401 not-authenticated", f"a token at {offset}")
        clock.set("+0")
        await service.recover(report)
        report.notes["token afterwards"] = await service.end_with(token)
        report.expect(report.notes["token afterwards"] == "200", "the token is refused")
        others = set(report.seen) - {"200", "401 not-authenticated"}
        report.expect(not others, f"a deadline or a quota went by the clock: {others}")
        times = [json.loads(line)["time"] for line in _records(service)]
        report.expect(times != sorted(times), "the service did not see the clock jump")
    return report


async def _spend(service: Service, clock: Clock, poor: str, report: Report) -> None:
    """A quota that is spent is not refilled by a jump."""
    service.headers = bearer(poor)
    while (await service.ask(valid(0))).whole.status == 200:
        pass
    clock.set("+1d")
    await asyncio.sleep(0.2)
    end = await service.end_with(poor)
    clock.set("+0")
    report.notes["spent quota a day ahead"] = end
    report.expect(end == "429 quota-exceeded", "a quota was refilled")


def _records(service: Service) -> list[bytes]:
    return [
        line
        for path in sorted(service.audit.glob("audit-*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]
