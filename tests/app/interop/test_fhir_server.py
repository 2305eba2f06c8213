"""Answers reach a FHIR server whole, once, and with a token; or it is said that they did not."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.domain.errors import FhirServerError
from app.interop.fhir_access import TokenAccess, open_fhir_server
from app.interop.fhir_server import MAX_ANSWER_BYTES, MAX_ATTEMPTS, FhirServer
from app.interop.smart_backend import read_signing_key
from tests.fhir_peers import running, scripted, write_key

Result = TypeVar("Result")

BUNDLE = b'{"resourceType": "Bundle", "type": "transaction", "entry": []}'


def answer(*responses: dict[str, Any]) -> bytes:
    entries = [{"response": response} for response in responses]
    return json.dumps({"resourceType": "Bundle", "entry": entries}).encode()


STORED = answer(
    {"status": "201 Created", "location": "Device/1/_history/1"},
    {"status": "200", "location": "http://elsewhere/fhir/DiagnosticReport/r-1/_history/2"},
)


def use(
    work: Callable[[FhirServer], Awaitable[Result]],
    address: str,
    access: TokenAccess | None = None,
    timeout_seconds: float = 10.0,
) -> Result:
    """Do something with a server, and close it."""

    async def scenario() -> Result:
        server = open_fhir_server(address, access, timeout_seconds)
        try:
            return await work(server)
        finally:
            await server.close()

    return asyncio.run(scenario())


def store(address: str, **options: Any) -> str:
    return use(lambda server: server.store(BUNDLE), address, **options)


def test_the_reports_place_is_found() -> None:
    with scripted((200, STORED)) as server:
        assert store(server.address + "/fhir/") == "DiagnosticReport/r-1"
    assert server.received == [("/fhir", BUNDLE)]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_failure_is_tried_again(status: int) -> None:
    with scripted((status, b""), (status, b""), (200, STORED)) as server:
        assert store(server.address) == "DiagnosticReport/r-1"
    assert [body for _, body in server.received] == [BUNDLE] * 3


def test_not_for_ever() -> None:
    with scripted((503, b"")) as server, pytest.raises(FhirServerError, match="status 503"):
        store(server.address)
    assert len(server.received) == MAX_ATTEMPTS


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 422, 500])
def test_a_refusal_is_not_repeated_in_any_sense(status: int) -> None:
    elsewhere = {"Location": "http://127.0.0.1:1/"}
    with (
        scripted((status, b'{"issue": "Zzyzx"}'), **elsewhere) as server,
        pytest.raises(FhirServerError, match=f"status {status}") as refused,
    ):
        store(server.address)
    assert len(server.received) == 1
    assert "Zzyzx" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"[]",
        b'{"resourceType": "OperationOutcome"}',
        b'{"resourceType": "Bundle"}',
        b'{"resourceType": "Bundle", "entry": {}}',
        b'{"resourceType": "Bundle", "entry": [null, {"response": 1}]}',
        answer({"status": "201", "location": "Device/1"}),
        answer({"status": "400"}, {"status": "201", "location": "DiagnosticReport/1"}),
        answer({"status": "201", "location": "DiagnosticReport/../../x"}),
    ],
)
def test_what_does_not_say_that_all_is_stored_is_no_success(body: bytes) -> None:
    with scripted((200, body)) as server, pytest.raises(FhirServerError):
        store(server.address)


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    body = b" " * (MAX_ANSWER_BYTES + 1)
    with scripted((200, body)) as server, pytest.raises(FhirServerError, match="longer than"):
        store(server.address)


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(FhirServerError, match="ConnectError"):
            store(address)


def test_somebody_listens_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(FhirServerError, match="ReadTimeout"):
            store(address, timeout_seconds=0.05)


def test_a_search_is_a_form_and_not_an_address() -> None:
    found = {"resourceType": "DiagnosticReport", "id": "1"}
    body = json.dumps({"resourceType": "Bundle", "entry": [{"resource": found}]}).encode()
    with scripted((200, body)) as server:
        query = {"subject": "Patient/1", "_sort": "-issued"}
        result = use(lambda s: s.search("DiagnosticReport", query), server.address)
    assert result == [found]
    assert server.received == [
        ("/DiagnosticReport/_search", b"subject=Patient%2F1&_sort=-issued"),
    ]


# With a real authorization server, which checks the client's assertion.


@pytest.fixture(scope="module", params=[None, 2048], ids=["ES384", "RS384"])
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("key") / "key.pem"
    return path, write_key(path, rsa_bits=request.param)


@pytest.fixture(scope="module")
def issuer(key: tuple[Path, str]) -> Iterator[str]:
    with running("token_server.mjs", CLIENT_KEY=key[1]) as address:
        yield address


def access(issuer: str, key: Path) -> TokenAccess:
    return TokenAccess(f"{issuer}/token", "dermhybrid", key, "key-1", "system/*.crs")


def tokens_of(server: FhirServer) -> Any:
    return server._tokens


async def three_tokens(server: FhirServer) -> list[str]:
    source = tokens_of(server)
    together = await asyncio.gather(source.get(), source.get())
    return [*together, await source.get()]


def test_a_token_is_kept_while_it_is_good(issuer: str, key: tuple[Path, str]) -> None:
    first, second, third = use(three_tokens, issuer, access(issuer, key[0]))
    assert first == second == third
    assert first.count(".") == 2


def test_a_token_that_ends_soon_is_not_used_again(tmp_path: Path) -> None:
    write_key(tmp_path / "key.pem")
    answers = [(200, b'{"access_token": "%d", "expires_in": 10}' % number) for number in range(3)]
    with scripted(*answers) as server:
        tokens = use(three_tokens, server.address, access(server.address, tmp_path / "key.pem"))
    assert tokens == ["0", "1", "2"]


def test_a_token_that_was_refused_is_not_used_again(issuer: str, key: tuple[Path, str]) -> None:
    with scripted((401, b""), (200, STORED)) as server:
        assert store(server.address, access=access(issuer, key[0])) == "DiagnosticReport/r-1"
    assert len(server.received) == 2


def test_a_key_that_is_not_registered_gets_no_token(issuer: str, tmp_path: Path) -> None:
    write_key(tmp_path / "other.pem")
    with pytest.raises(FhirServerError, match="gave no token .status 401"):
        store(issuer, access=access(issuer, tmp_path / "other.pem"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"access_token": ""}',
        b'{"access_token": "a\\r\\nb"}',
        b'{"access_token": "a", "expires_in": {}}',
        b'{"access_token": "a", "expires_in": NaN}',
        b'{"access_token": "a", "expires_in": -1}',
    ],
)
def test_what_is_no_token_is_refused(tmp_path: Path, body: bytes) -> None:
    write_key(tmp_path / "key.pem")
    with (
        scripted((200, body)) as server,
        pytest.raises(FhirServerError, match="authorization server gave no"),
    ):
        store(server.address, access=access(server.address, tmp_path / "key.pem"))


def test_a_key_of_another_kind_stops_the_start(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="P-384 or RSA"):
        read_signing_key(path)
