"""Access tokens: each check refuses on its own, and keys are changed while serving."""

import asyncio
import base64
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import jwt
import pytest

from app.access import fetched_keys, tokens
from app.access.scopes import Caller, Scope
from app.access.tokens import TokenVerifier
from app.domain.errors import (
    AccessConfigurationError,
    IdentityProviderUnavailableError,
    NotAuthenticatedError,
)
from tests.issuer import AUDIENCE, ISSUER, Issuer, write_jwks


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def verifier(issuer: Issuer, tmp_path: Path) -> TokenVerifier:
    return TokenVerifier(ISSUER, AUDIENCE, str(write_jwks(tmp_path / "jwks.json", issuer)))


def minutes(number: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=number)


def refusal(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(NotAuthenticatedError) as refused:
        asyncio.run(verifier.find_caller(token))
    assert refused.value.invalid
    assert token not in str(refused.value)
    return str(refused.value)


def test_a_good_token_names_its_client_and_scopes(verifier: TokenVerifier, issuer: Issuer) -> None:
    found = asyncio.run(verifier.find_caller(issuer.token("openid predict system/Device.rs")))
    assert found.id == "oauth:ehr"
    assert found.scopes == {Scope.PREDICT, Scope.MODELS_READ}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"client_id": None, "azp": "portal"}, "oauth:portal"),
        ({"client_id": None, "sub": "backend"}, "oauth:backend"),
        ({"aud": ["other", AUDIENCE]}, "oauth:ehr"),
        ({"scope": None, "scp": ["predict", 5]}, "oauth:ehr"),
        ({"nbf": minutes(-1)}, "oauth:ehr"),
    ],
)
def test_what_servers_differ_in_is_taken(
    verifier: TokenVerifier, issuer: Issuer, changes: dict[str, Any], expected: str
) -> None:
    found = asyncio.run(verifier.find_caller(issuer.token("predict", **changes)))
    assert found == Caller(expected, frozenset({Scope.PREDICT}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp": minutes(-1)}, "expired"),
        ({"exp": None}, "lacks"),
        ({"nbf": minutes(24 * 60)}, "not valid yet"),
        ({"aud": "billing"}, "another audience"),
        ({"aud": None}, "lacks"),
        ({"iss": "https://evil.example.org"}, "another issuer"),
        ({"iss": None}, "lacks"),
        ({"client_id": None, "sub": None}, "client_id"),
        ({"client_id": "a\nb", "sub": None}, "client_id"),
    ],
)
def test_every_claim_is_checked(
    verifier: TokenVerifier, issuer: Issuer, changes: dict[str, Any], message: str
) -> None:
    assert message in refusal(verifier, issuer.token("predict", **changes))


def test_only_the_issuers_signature_counts(verifier: TokenVerifier, issuer: Issuer) -> None:
    head, body, signature = issuer.token("predict").split(".")
    claims = json.loads(base64.urlsafe_b64decode(f"{body}=="))
    other = base64.urlsafe_b64encode(json.dumps({**claims, "scope": "admin"}).encode())
    assert "signature" in refusal(verifier, f"{head}.{other.rstrip(b'=').decode()}.{signature}")
    assert "signature" in refusal(verifier, Issuer().token("predict"))  # of the same key id
    assert "not known" in refusal(verifier, Issuer("key-2").token("predict"))
    nameless = base64.urlsafe_b64encode(b'{"alg":"RS256"}').rstrip(b"=").decode()
    assert "not known" in refusal(verifier, f"{nameless}.{body}.{signature}")
    unsigned = jwt.encode(claims, "", "none", headers={"kid": issuer.kid})
    assert "algorithm" in refusal(verifier, unsigned)
    # The public key as a shared secret (CVE-2015-9235).
    shared = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": issuer.kid}).encode())
    signed = f"{shared.rstrip(b'=').decode()}.{body}"
    public = json.dumps(issuer.jwk()).encode()
    mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256"))
    assert "algorithm" in refusal(verifier, f"{signed}.{mac.rstrip(b'=').decode()}")
    for nonsense in ("nonsense", "aaaa.bbbb.cccc", "e30.e30.", "x" * (tokens.MAX_TOKEN_LENGTH + 1)):
        refusal(verifier, nonsense)


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_all_pinned_algorithms_work(tmp_path: Path, algorithm: str) -> None:
    issuer = Issuer(algorithm=algorithm)
    jwks = write_jwks(tmp_path / "jwks.json", issuer)
    verifier = TokenVerifier(ISSUER, AUDIENCE, str(jwks))
    assert asyncio.run(verifier.find_caller(issuer.token("predict"))).scopes == {Scope.PREDICT}


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_a_key_need_not_name_its_algorithm(tmp_path: Path, algorithm: str) -> None:
    issuer, path = Issuer(algorithm=algorithm), tmp_path / "jwks.json"
    unnamed = {name: value for name, value in issuer.jwk().items() if name != "alg"}
    path.write_text(json.dumps({"keys": [unnamed]}))
    verifier = TokenVerifier(ISSUER, AUDIENCE, str(path))
    assert asyncio.run(verifier.find_caller(issuer.token("predict"))).scopes == {Scope.PREDICT}
    stranger = Issuer(algorithm=algorithm)
    assert "signature" in refusal(verifier, stranger.token("predict"))
    # Of another kind than the key is.
    other = Issuer(algorithm="RS256" if algorithm.startswith("ES") else "ES256")
    refusal(verifier, other.token("predict"))


def test_a_key_that_names_its_algorithm_is_for_no_other(tmp_path: Path) -> None:
    issuer = Issuer(algorithm="RS256")
    verifier = TokenVerifier(ISSUER, AUDIENCE, str(write_jwks(tmp_path / "jwks.json", issuer)))
    issuer.algorithm = "PS256"
    assert "algorithm" in refusal(verifier, issuer.token("predict"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"keys": [{"kty": "none"}]}'])
def test_a_file_that_holds_no_keys_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(AccessConfigurationError, match=r"jwks\.json"):
        TokenVerifier(ISSUER, AUDIENCE, str(path))


def test_keys_do_not_come_over_a_wire_that_others_can_change() -> None:
    with pytest.raises(AccessConfigurationError, match="https"):
        TokenVerifier(ISSUER, AUDIENCE, "http://identity.example.org/jwks")


@contextmanager
def jwks_server(
    *issuers: Issuer, gate: Event | None = None
) -> Iterator[tuple[str, list[bytes], list[str]]]:
    """A real server of keys: its address, its answer, and the requests that it got.

    It answers while the gate is set.
    """
    answer = [json.dumps({"keys": [issuer.jwk() for issuer in issuers]}).encode()]
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            requests.append(self.path)
            if gate is not None:
                assert gate.wait(60)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer[0])

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks", answer, requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def hanging_server(issuer: Issuer) -> Iterator[tuple[str, Event, list[str]]]:
    """One that hangs while its gate, the second, is not set."""
    gate = Event()
    gate.set()
    with jwks_server(issuer, gate=gate) as (url, _, requests):
        yield url, gate, requests


def test_keys_are_fetched_once_and_again_when_they_change(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        many = [verifier.find_caller(issuer.token("predict")) for _ in range(20)]
        assert {found.id for found in await asyncio.gather(*many)} == {"oauth:ehr"}
        assert len(requests) == 1
        for number in range(20):  # key ids at random cause no requests
            with pytest.raises(NotAuthenticatedError, match="not known"):
                await verifier.find_caller(Issuer.token(issuer, "", {"kid": f"guess-{number}"}))
        assert len(requests) == 1

    with jwks_server(issuer) as (url, answer, requests):
        verifier = TokenVerifier(ISSUER, AUDIENCE, url)
        asyncio.run(scenario())
        monkeypatch.setattr(fetched_keys, "UNKNOWN_KEY_COOLDOWN_SECONDS", 0.0)
        verifier = TokenVerifier(ISSUER, AUDIENCE, url)
        asyncio.run(verifier.find_caller(issuer.token("predict")))
        new = Issuer("key-2", "ES384")
        answer[0] = json.dumps({"keys": [new.jwk()]}).encode()
        assert asyncio.run(verifier.find_caller(new.token("predict"))).id == "oauth:ehr"
        assert "not known" in refusal(verifier, issuer.token("predict"))


def test_keys_of_a_provider_that_is_gone_are_used_for_their_time_and_no_longer(
    issuer: Issuer,
) -> None:
    async def scenario() -> None:
        token = issuer.token("predict")
        await verifier.find_caller(token)
        server.close()
        assert verifier._fetched is not None
        verifier._fetched._fetched_at -= 0.9 * fetched_keys.KEYS_LIFESPAN_SECONDS
        assert (await verifier.find_caller(token)).id == "oauth:ehr"
        verifier._fetched._fetched_at -= 0.2 * fetched_keys.KEYS_LIFESPAN_SECONDS
        with pytest.raises(IdentityProviderUnavailableError):
            await verifier.find_caller(token)

    with ExitStack() as server:
        url, _, _ = server.enter_context(jwks_server(issuer))
        verifier = TokenVerifier(ISSUER, AUDIENCE, url)
        asyncio.run(scenario())


def test_keys_are_fetched_from_nowhere_else(issuer: Issuer) -> None:
    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self.send_response(302)
            self.send_header("Location", elsewhere)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with (
        jwks_server(issuer) as (elsewhere, _, requests),
        ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as server,
    ):
        Thread(target=server.serve_forever).start()
        verifier = TokenVerifier(ISSUER, AUDIENCE, f"http://127.0.0.1:{server.server_port}/jwks")
        with pytest.raises(IdentityProviderUnavailableError):
            asyncio.run(verifier.find_caller(issuer.token("predict")))
        server.shutdown()
        assert requests == []


def test_a_provider_that_hangs_costs_one_thread_and_no_known_key(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched_keys, "UNKNOWN_KEY_COOLDOWN_SECONDS", 0.0)

    async def scenario() -> None:
        verifier = TokenVerifier(ISSUER, AUDIENCE, url)
        await verifier.find_caller(issuer.token("predict"))
        monkeypatch.setattr(fetched_keys, "FETCH_SECONDS", 0.3)
        gate.clear()
        before = threading.active_count()
        unknown = [
            asyncio.create_task(verifier.find_caller(issuer.token("", {"kid": f"guess-{number}"})))
            for number in range(20)
        ]
        async with asyncio.timeout(60):
            while len(requests) < 2:  # noqa: ASYNC110  another thread's
                await asyncio.sleep(0.01)
        assert (await verifier.find_caller(issuer.token("predict"))).id == "oauth:ehr"
        outcomes = await asyncio.gather(*unknown, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {IdentityProviderUnavailableError}
        assert len(requests) == 2
        # The server's own for that request; the fetch's is the one that made the first fetch.
        assert threading.active_count() - before <= 1
        gate.set()

    with hanging_server(issuer) as (url, gate, requests):
        asyncio.run(scenario())


def test_keys_that_grow_old_are_fetched_beside_those_who_need_none(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched_keys, "UNKNOWN_KEY_COOLDOWN_SECONDS", 0.0)

    async def scenario() -> None:
        verifier = TokenVerifier(ISSUER, AUDIENCE, url)
        await verifier.find_caller(issuer.token("predict"))
        gate.clear()
        monkeypatch.setattr(fetched_keys, "KEYS_LIFESPAN_SECONDS", 1e9)
        await verifier.find_caller(issuer.token("predict"))
        assert len(requests) == 1
        assert verifier._fetched is not None
        verifier._fetched._fetched_at -= 0.6e9
        async with asyncio.timeout(60):
            while len(requests) < 2:  # while the provider does not answer
                await verifier.find_caller(issuer.token("predict"))
                await asyncio.sleep(0.01)
        gate.set()

    with hanging_server(issuer) as (url, gate, requests):
        asyncio.run(scenario())


def test_without_the_issuer_nobody_is_let_in_unchecked(issuer: Issuer) -> None:
    with jwks_server(issuer) as (url, answer, _):
        for bad in (b"<html>", b"[]", b'{"keys": []}'):
            answer[0] = bad
            verifier = TokenVerifier(ISSUER, AUDIENCE, url)
            with pytest.raises((IdentityProviderUnavailableError, NotAuthenticatedError)):
                asyncio.run(verifier.find_caller(issuer.token("predict")))
    verifier = TokenVerifier(ISSUER, AUDIENCE, url)  # nobody listens there any more
    with pytest.raises(IdentityProviderUnavailableError, match="API key"):
        asyncio.run(verifier.find_caller(issuer.token("predict")))
