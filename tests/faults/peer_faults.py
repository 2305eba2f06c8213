"""Faults of servers that the service asks: the identity provider goes and comes back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from app.access.keys import create_key
from app.access.scopes import Scope
from tests.faults.ledger import Report
from tests.faults.relay import relay_to
from tests.faults.service import bearer
from tests.faults.stage import Stage
from tests.issuer import AUDIENCE, ISSUER, Issuer


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
                    await s.recover(report, **bearer(token))
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
