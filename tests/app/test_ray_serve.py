"""What Ray Serve builds replicas of: settings that can hold for several, or none at all."""

import socket
from pathlib import Path

import pytest

from app import ray_serve
from app.domain.errors import AccessConfigurationError, ArtifactError
from app.ray_serve import NUM_OPERATIONS_PORTS, _listen, build, check_replicable
from app.settings import Settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"operations_port": None}, ["OPERATIONS_PORT"]),
        ({"quota_per_minute": 60}, ["QUOTA_PER_MINUTE"]),
        (
            {"dicom_queue_dir": Path("queue"), "dicom_store_peer": "PACS@127.0.0.1:104"},
            ["DICOM_QUEUE_DIR"],
        ),
        (
            {"tls_certificate": Path("a"), "tls_private_key": Path("a"), "quota_per_minute": 60},
            ["QUOTA_PER_MINUTE", "TLS_CERTIFICATE"],
        ),
    ],
)
def test_what_would_be_silently_wrong_is_named(
    settings: dict[str, object], named: list[str]
) -> None:
    given = Settings.model_validate({"operations_port": 9100, **settings})
    with pytest.raises(ValueError, match="Not with replicas") as error:
        check_replicable(given)
    names = ("OPERATIONS_PORT", "QUOTA_PER_MINUTE", "DICOM_QUEUE_DIR", "TLS_CERTIFICATE")
    assert [name for name in names if name in str(error.value)] == named


def test_everything_else_may_be_set() -> None:
    check_replicable(Settings(operations_port=9100, audit_dir=Path("audit"), cds_hooks=True))


def test_a_service_that_nobody_should_run_is_not_built(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATIONS_PORT", "9100")
    monkeypatch.setenv("MODELS_DIR", str(tiny_models))
    with pytest.raises(AccessConfigurationError, match="AUTHENTICATION=off"):
        build({})
    monkeypatch.setenv("AUTHENTICATION", "off")
    build({})
    with pytest.raises(ValueError, match="received \\['models_dir'\\]"):
        build({"models_dir": "elsewhere"})
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    with pytest.raises(ArtifactError, match="MODELS_DIR"):
        build({})


def test_replicas_of_a_machine_take_one_port_each_until_there_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        with _listen("127.0.0.1", first) as second, _listen("127.0.0.1", first) as third:
            ports = [listening.getsockname()[1] for listening in (second, third)]
    assert first < ports[0] < ports[1] < first + NUM_OPERATIONS_PORTS


def test_too_many_replicas_of_a_machine_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_serve, "NUM_OPERATIONS_PORTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        with pytest.raises(OSError, match="OPERATIONS_PORT: the 1 ports"):
            _listen("127.0.0.1", first)
