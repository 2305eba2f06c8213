"""Faults of servers that the service asks: they go away and come back."""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

from app.access.keys import create_key
from app.access.scopes import Scope
from tests.dicom_photographs import make_dataset, to_bytes
from tests.faults.ledger import Outcome, Part, Report
from tests.faults.pictures import Ask, jpeg, valid
from tests.faults.relay import relay_to
from tests.faults.service import RECOVERY_SECONDS, Service, bearer
from tests.faults.stage import Stage
from tests.fhir_peers import running
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.orthanc import run_orthanc
from tests.programs import PEERS

_STUDIES: Final = "/dicom/studies"


async def identity_provider(stage: Stage) -> Report:
    """The keys that tokens are checked with cannot be had, then can, then cannot again."""
    keys, issuer = stage.folder / "peer-keys.jsonl", Issuer()
    key = create_key(keys, "always", [Scope.PREDICT], None)
    with _publish(issuer) as url:
        async with relay_to(url) as way:
            settings = {
                "API_KEYS_FILE": str(keys),
                "OAUTH_ISSUER": ISSUER,
                "OAUTH_AUDIENCE": AUDIENCE,
                "OAUTH_JWKS": way.url,
            }
            await way.cut()
            async with stage.serve("identity", bearer(key), **settings) as s:
                done = (
                    "the identity provider refused connections, then took them and was silent; "
                    "then it was back, and gone again; callers with API keys asked all the while"
                )
                token = issuer.token("user/DiagnosticReport.c")
                async with s.fault(done) as report:
                    with s.meanwhile(report):
                        async with s.callers(2):
                            gone = await s.end_with(token)
                            await way.open(silent=True)
                            silent = await s.end_with(token)
                            await way.cut()
                    await way.open()
                    await s.recover(report, replace(valid(0), headers=bearer(token)))
                    await way.cut()
                    kept = await s.end_with(token)
                    report.notes["token while it is gone"] = gone
                    report.notes["token while it is silent"] = silent
                    report.notes["token when it is gone again"] = kept
                    refusal = "503 identity-provider-unavailable"
                    report.expect(gone == silent == refusal, "a token was not refused as it should")
                    report.expect(kept == "200", "keys were not kept")
                    others = set(report.seen) - {"200", refusal}
                    report.expect(not others, f"API keys: {others}")
    return report


async def fhir_server(stage: Stage) -> Report:
    """Answers cannot be stored, then can again."""
    if shutil.which("node") is None or not (PEERS / "node_modules").is_dir():
        return Report("", skipped="the test peers are not installed (npm ci --prefix tests/peers)")
    subject = {"X-FHIR-Subject": "Patient/1"}
    stored = Ask("/predict?format=fhir&store=true", jpeg(1), "image/jpeg", subject)
    with running("fhir_server.mjs") as url:
        async with relay_to(url) as way:
            settings = {"FHIR_SERVER_URL": way.url, "FHIR_TIMEOUT_SECONDS": "2"}
            async with stage.serve("fhir", {}, **settings) as s:
                done = (
                    "the FHIR server refused connections, then took them and was silent, while "
                    "answers were to be stored on it, and others were not"
                )
                async with s.fault(done) as report:
                    with s.meanwhile(report):
                        async with s.callers(2):
                            await way.cut()
                            gone = (await s.ask(stored)).whole.name
                            await way.open(silent=True)
                            silent = (await s.ask(stored)).whole.name
                            await way.cut()
                    await way.open()
                    await s.recover(report, stored)
                    report.notes["to be stored while it is gone"] = gone
                    report.notes["to be stored while it is silent"] = silent
                    report.expect(gone == silent == "502 fhir-server", "given, and not stored")
                    others = {**report.seen, "502 fhir-server": report.seen["502 fhir-server"] - 2}
                    report.expect(others.pop("200", 0), "what was not to be stored had no answer")
                    report.expect(not any(others.values()), f"not to be stored: {others}")
                    async with s.session.get(f"{url}/DiagnosticReport") as answer:
                        there = len(json.loads(await answer.read()).get("entry", ()))
                    report.notes["reports on it afterwards"] = there
                    report.expect(there == 1, f"{there} reports are on it")
    return report


async def archive(stage: Stage) -> Report:
    """Photographs are sent to be answered in an archive that is away, and comes back."""
    if shutil.which("Orthanc") is None:
        return Report("", skipped="Orthanc is not installed (Debian's package orthanc)")
    number, seconds = int(stage.scale(20, 3)), stage.scale(20, 3)
    folder = stage.folder / "orthanc"
    folder.mkdir(exist_ok=True)
    with run_orthanc(folder) as orthanc:
        async with relay_to(orthanc.dicomweb) as way:
            settings = {
                "DICOM_QUEUE_DIR": str(stage.folder / "archive-queue"),
                "DICOM_STORE_URL": way.url,
                "DICOM_RETRY_SECONDS": "0.5",
            }
            await way.cut()
            async with stage.serve("archive", {}, **settings) as s:
                done = (
                    f"the archive refused connections while {number} photographs were sent for "
                    f"it, then was silent, {seconds:g} s in all; then it was back"
                )
                async with s.fault(done) as report:
                    with s.meanwhile(report):
                        async with s.callers(1):
                            taken = [await _send_photograph(s, report) for _ in range(number)]
                            await asyncio.sleep(seconds / 2)
                            await way.open(silent=True)
                            await asyncio.sleep(seconds / 2)
                            await way.cut()
                    await way.open()
                    back = time.perf_counter()
                    await s.recover(report)
                    jobs = [job for job in taken if job is not None]
                    ends = await asyncio.gather(*(_end_of(s, job) for job in jobs))
                    waited = round(time.perf_counter() - back, 1)
                    report.notes["until every result is in the archive, seconds"] = waited
                    report.expect(set(ends) == {"stored"}, f"jobs ended in {set(ends)}")
                    found = await asyncio.to_thread(orthanc.count)
                    report.notes["in the archive, by modality"] = [
                        f"{modality} {count}" for modality, count in sorted(found.items())
                    ]
                    expected = {"SR": number, "OT": number}
                    report.expect(found == expected, f"the archive has {found}")
                    others = set(report.seen) - {"200", "202"}
                    report.expect(not others, f"other callers: {others}")
    return report


async def _send_photograph(service: Service, report: Report) -> str | None:
    """The job that a photograph was taken as, which is the request id of its record."""
    ask = Ask(_STUDIES, to_bytes(make_dataset()), "application/dicom")
    sent, body = await service.ask_for(ask)
    if sent.whole.status != 202:
        report.expect(False, f"a photograph was not taken: {sent.whole.name}")
        return None
    (job,) = json.loads(body)["jobs"]
    service.ledger.sent.add(job["id"])
    return str(job["id"])


async def _end_of(service: Service, job: str) -> str:
    """Wait for a job's end, and note it where it was answered."""
    started, state = time.perf_counter(), ""
    while state not in ("stored", "refused", "dead"):
        if time.perf_counter() - started > RECOVERY_SECONDS:
            return state
        await asyncio.sleep(0.2)
        async with service.session.get(f"{service.address}/dicom/jobs/{job}") as answer:
            state = (await answer.json())["state"]
    if state == "stored":
        service.ledger.add(Outcome(job, Part(200)))
    return state


@contextmanager
def _publish(issuer: Issuer) -> Iterator[str]:
    """The address of an issuer's keys."""
    content = json.dumps({"keys": [issuer.jwk()]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            server.shutdown()
            thread.join()
