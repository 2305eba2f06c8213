"""docker-compose.yml: its parts fit one another, and the archive does its part.

Orthanc is the real one, with the configuration that compose gives it, on free ports of this
machine. The proxy is test_proxy's, the images are test_image's.
"""

import io
import json
import time
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx2
import pydicom
import pytest
import yaml

from app.server import check_exposure
from app.settings import Settings
from tests.conftest import REPOSITORY
from tests.dicom_photographs import make_dataset, to_bytes
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.service_process import service_process

COMPOSE: dict[str, Any] = yaml.safe_load(
    (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: dict[str, str] = SERVICES["dermhybrid"]["environment"]
CADDYFILE = REPOSITORY / "deploy" / "caddy" / "Caddyfile"
PATIENCE_SECONDS = 60


def test_the_archive_of_compose_gets_its_results(tiny_models: Path, tmp_path: Path) -> None:
    """By itself for what is new, and when it is sent again for what came meanwhile."""
    port, listener = free_port(), free_port()
    meanwhile, new = make_dataset(), make_dataset()
    with run_orthanc(
        tmp_path,
        listener_port=listener,
        service_url=f"http://127.0.0.1:{port}",
        name="compose.json",
    ) as orthanc:
        settings = {
            **{name: value for name, value in SETTINGS.items() if name.startswith("DICOM_")},
            "MODELS_DIR": str(tiny_models),
            "RUNTIME": "openvino",
            "DICOM_LISTEN_PORT": str(listener),
            "DICOM_QUEUE_DIR": str(tmp_path / "queue"),
            "DICOM_STORE_URL": SETTINGS["DICOM_STORE_URL"].replace(
                "http://orthanc:8042", orthanc.url
            ),
        }
        store(orthanc, meanwhile, tmp_path)
        with service_process(tmp_path / "log", settings, port=port):
            store(orthanc, new, tmp_path)
            assert report(orthanc, new).PatientID == new.PatientID
            assert not orthanc.download(meanwhile.StudyInstanceUID, "SR")
            query = {"Level": "Study", "Query": {"StudyInstanceUID": meanwhile.StudyInstanceUID}}
            (study,) = httpx2.post(f"{orthanc.url}/tools/find", json=query).json()
            again = f"{orthanc.url}/modalities/dermhybrid/store"
            assert httpx2.post(again, content=study).status_code == 200
            assert report(orthanc, meanwhile).PatientID == meanwhile.PatientID


def store(orthanc: Orthanc, photograph: pydicom.Dataset, folder: Path) -> None:
    file = folder / f"{photograph.SOPInstanceUID}.dcm"
    file.write_bytes(to_bytes(photograph))
    orthanc.store(file)


def report(orthanc: Orthanc, photograph: pydicom.Dataset) -> pydicom.Dataset:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (found := orthanc.download(photograph.StudyInstanceUID, "SR")):
        assert time.monotonic() < give_up
        time.sleep(0.2)
    return pydicom.dcmread(io.BytesIO(found[0]))


def test_only_this_machine_reaches_what_asks_for_no_credential() -> None:
    assert SETTINGS["AUTHENTICATION"] == "off"
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_proxy_alone_has_the_address_that_is_trusted() -> None:
    (pool,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    address = SERVICES["proxy"]["networks"]["front"]["ipv4_address"]
    assert SETTINGS["FORWARDED_ALLOW_IPS"] == address
    assert ip_address(address) in ip_network(pool["subnet"])
    assert ip_address(address) not in ip_network(pool["ip_range"])  # given to the others
    assert IPv4Network(pool["ip_range"]).subnet_of(IPv4Network(pool["subnet"]))


def test_only_the_service_meets_all_the_others() -> None:
    met = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert met.pop("dermhybrid") == set(COMPOSE["networks"])
    assert sum(map(len, met.values())) == len(set.union(*met.values()))


def test_addresses_in_it_fit_one_another() -> None:
    assert "{$UPSTREAM:dermhybrid:8000}" in CADDYFILE.read_text(encoding="utf-8")
    assert SERVICES["orthanc"]["environment"]["DERMHYBRID_URL"] == "http://dermhybrid:8000"
    archive = json.loads((REPOSITORY / "deploy/orthanc/compose.json").read_text(encoding="utf-8"))
    root = archive["DicomWeb"]["Root"].strip("/")
    assert SETTINGS["DICOM_STORE_URL"] == f"http://orthanc:{archive['HttpPort']}/{root}"
    assert archive["DicomModalities"]["dermhybrid"][1:] == [
        "dermhybrid",
        int(SETTINGS["DICOM_LISTEN_PORT"]),
    ]
    assert SETTINGS["DICOM_CALLING_AES"] == archive["DicomAet"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_part_is_bounded(name: str) -> None:
    said = SERVICES[name]
    assert said["read_only"]
    assert said["cap_drop"] == ["ALL"]
    assert said.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert said["mem_limit"]
    assert said["pids_limit"]
    assert said["logging"]["driver"] == "json-file"
    assert set(said["logging"]["options"]) == {"max-size", "max-file"}
    assert not said.get("privileged")


def test_the_watcher_starts_without_what_it_watches() -> None:
    assert "depends_on" not in SERVICES["prometheus"]


def test_the_service_takes_its_settings_and_has_time_to_stop() -> None:
    settings = Settings.model_validate({name.lower(): value for name, value in SETTINGS.items()})
    check_exposure(settings, "0.0.0.0")  # noqa: S104  as the image's command has it
    for name in ("dermhybrid", "proxy"):
        seconds = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert seconds > settings.shutdown_grace_seconds
