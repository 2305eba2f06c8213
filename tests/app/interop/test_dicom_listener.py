"""Who may store by C-STORE: the real `storescu` with and without a name, a key, and patience."""

import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from app.domain.errors import AccessConfigurationError
from app.interop import dicom_listener
from app.interop.dicom_listener import Door, StorageListener
from app.interop.dicom_tls import listen_with_tls
from tests.dicom_photographs import PATIENT_NAME, make_dataset, to_bytes
from tests.ports import free_port
from tests.programs import require_program

CALLING_NOT_RECOGNISED = "Reason: Calling AE Title Not Recognized"


class Taken(list[tuple[bytes, str]]):
    """What has come, and from whom; and why associations were ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []

    def take(self, instance: bytes, sender: str) -> None:
        self.append((instance, sender))

    def await_ended(self, number: int) -> None:
        """Callers are gone before the threads that answered them have said so."""
        give_up = time.monotonic() + 20
        while len(self.ended) < number:
            assert time.monotonic() < give_up, self.ended
            time.sleep(0.05)


@contextmanager
def listening(
    *titles: str, tls: tuple[Path, Path, Path | None] | None = None
) -> Iterator[tuple[int, Taken]]:
    taken, port = Taken(), free_port()
    context = None if tls is None else listen_with_tls(*tls)
    door = Door("DERMHYBRID", ("127.0.0.1", port), titles, context)
    listener = StorageListener(door, 10_000_000, taken.take, taken.ended.append)
    try:
        yield port, taken
    finally:
        listener.close()


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "photograph.dcm"
    path.write_bytes(to_bytes(make_dataset()))
    return path


def store(port: int, path: Path, *options: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [require_program("storescu"), *options, "-R", "-aec", "DERMHYBRID", "-to", "20"]
    return subprocess.run(
        [*command, "127.0.0.1", str(port), path], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates of the service, of a camera, and of somebody else."""
    folder, openssl = tmp_path_factory.mktemp("keys"), require_program("openssl")
    for name in ("service", "camera", "stranger"):
        request = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={name}"
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        subprocess.run([openssl, *request.split(), *files], check=True, capture_output=True)
    return folder


def shown(keys: Path, name: str) -> tuple[str | Path, ...]:
    """Options of a caller that shows its certificate, and trusts the service's alone."""
    return "+tls", keys / f"{name}.key", keys / f"{name}.crt", "+cf", keys / "service.crt"


def test_without_a_list_anybody_may_send(photograph: Path) -> None:
    with listening() as (port, taken):
        assert store(port, photograph, "-aet", "ANYBODY").returncode == 0
    ((data, sender),) = taken
    assert sender == "ae:ANYBODY@127.0.0.1"
    assert PATIENT_NAME.encode() in data


def test_whoever_is_not_on_the_list_is_rejected_by_name(
    photograph: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with listening("CAMERA-1", "PACS") as (port, taken), caplog.at_level("WARNING"):
        for title in ("CAMERA-1", "PACS"):
            assert store(port, photograph, "-aet", title).returncode == 0
        for title in ("CAMERA", "camera-1", "Roe^Jane"):
            rejected = store(port, photograph, "-aet", title)
            assert rejected.returncode != 0
            assert CALLING_NOT_RECOGNISED in rejected.stderr
    assert [sender for _, sender in taken] == ["ae:CAMERA-1@127.0.0.1", "ae:PACS@127.0.0.1"]
    records = [record for record in caplog.records if record.message == "association rejected"]
    assert len(records) == 3
    assert taken.ended == ["rejected"] * 3
    assert "Roe" not in caplog.text


def test_with_tls_nothing_goes_in_the_clear(photograph: Path, keys: Path) -> None:
    with listening(tls=(keys / "service.crt", keys / "service.key", None)) as (port, taken):
        assert store(port, photograph).returncode != 0
        trusting = ("+tla", "+cf", keys / "service.crt")
        assert store(port, photograph, *trusting).returncode == 0
        assert store(port, photograph, "+tla", "+cf", keys / "camera.crt").returncode != 0
        taken.await_ended(2)
    assert [sender for _, sender in taken] == ["ae:STORESCU@127.0.0.1"]
    assert taken.ended == ["tls", "tls"]


def test_with_authorities_only_their_clients_may_send(photograph: Path, keys: Path) -> None:
    files = (keys / "service.crt", keys / "service.key", keys / "camera.crt")
    with listening("CAMERA", tls=files) as (port, taken):
        assert store(port, photograph, "-aet", "CAMERA", *shown(keys, "camera")).returncode == 0
        for refused in (
            ("-aet", "CAMERA", *shown(keys, "stranger")),
            ("-aet", "CAMERA", "+tla", "+cf", keys / "service.crt"),
            ("-aet", "CAMERA"),
        ):
            assert store(port, photograph, *refused).returncode != 0
        taken.await_ended(3)
        named = store(port, photograph, "-aet", "OTHER", *shown(keys, "camera"))
        assert CALLING_NOT_RECOGNISED in named.stderr
        taken.await_ended(4)
    assert taken.ended == ["tls", "tls", "tls", "rejected"]
    (_, sender), *others = taken
    der = ssl.PEM_cert_to_DER_cert((keys / "camera.crt").read_text())
    assert sender == f"ae:CAMERA@127.0.0.1;cert:{sha256(der).hexdigest()}"
    assert not others


def test_a_caller_that_says_nothing_keeps_nobody_out(photograph: Path, keys: Path) -> None:
    files = (keys / "service.crt", keys / "service.key", None)
    with listening(tls=files) as (port, taken), socket.create_connection(("127.0.0.1", port)):
        assert store(port, photograph, "+tla", "+cf", keys / "service.crt").returncode == 0
    assert len(taken) == 1


def test_a_unit_is_not_read_to_the_length_that_it_declares(photograph: Path) -> None:
    piece = bytes(1 << 16)
    with listening("CAMERA-1") as (port, taken):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
            caller.sendall(b"\x01\0\xff\xff\xff\xff")
            with suppress(ConnectionError):
                for _ in range(1000):
                    caller.sendall(piece)
        taken.await_ended(1)
        assert store(port, photograph, "-aet", "CAMERA-1").returncode == 0
    assert taken.ended == ["pdu-too-long"]


def test_a_unit_that_comes_in_drops_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_listener, "PDU_SECONDS", 1.0)
    with (
        listening("CAMERA-1") as (port, taken),
        socket.create_connection(("127.0.0.1", port), timeout=0.2) as caller,
    ):
        caller.sendall(b"\x01\0\0\0\xff\xff")
        send_until_closed(caller, b"\0")
        taken.await_ended(1)
    assert taken.ended == ["pdu-too-slow"]


def send_until_closed(caller: socket.socket, piece: bytes) -> None:
    """Send a piece again and again, with pauses while nothing comes back."""
    with suppress(ConnectionError):
        while True:
            caller.sendall(piece)
            with suppress(TimeoutError):
                if not caller.recv(1):
                    return


def test_who_offers_nothing_that_is_taken_is_told_apart_from_who_only_looks(
    photograph: Path, keys: Path
) -> None:
    with listening() as (port, taken):
        entity = AE(ae_title="CT")
        entity.add_requested_context(CTImageStorage)
        assert not entity.associate("127.0.0.1", port, ae_title="DERMHYBRID").is_established
        taken.await_ended(1)
        socket.create_connection(("127.0.0.1", port)).close()  # as load balancers do
        assert store(port, photograph).returncode == 0
    assert taken.ended == ["no-context"]
    with listening(tls=(keys / "service.crt", keys / "service.key", None)) as (port, taken):
        socket.create_connection(("127.0.0.1", port)).close()
        assert store(port, photograph, "+tla", "+cf", keys / "service.crt").returncode == 0
    assert taken.ended == []


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_keys_that_do_not_do_are_said_to_be_so(keys: Path, tmp_path: Path, missing: int) -> None:
    files = [keys / "service.crt", keys / "service.key", keys / "camera.crt"]
    for wrong in (tmp_path / "none.pem", keys / "stranger.key"):
        given = [*files[:missing], wrong, *files[missing + 1 :]]
        with pytest.raises(AccessConfigurationError, match="DICOM_TLS_CERTIFICATE") as raised:
            listen_with_tls(*given)
        assert not re.search("PRIVATE KEY-----", str(raised.value))
