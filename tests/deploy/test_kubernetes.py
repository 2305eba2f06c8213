"""The manifests are what Kubernetes takes, and fit the service and one another."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.server import check_exposure
from app.settings import Settings
from tests.conftest import REPOSITORY
from tests.programs import require_program

FOLDER = REPOSITORY / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
RESOURCES = [
    document
    for name in KUSTOMIZATION["resources"]
    for document in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
]
COMPONENTS = {
    name: yaml.safe_load((FOLDER / name / "kustomization.yaml").read_text(encoding="utf-8"))
    for name in ("fhir", "dicom")
}
PARTS = {
    f"{name}/{file}": yaml.safe_load((FOLDER / name / file).read_text(encoding="utf-8"))
    for name, component in COMPONENTS.items()
    for file in [*component["resources"], *(patch["path"] for patch in component["patches"])]
}
"""Of the components, by file."""
PATCHES = ("fhir/deployment.yaml", "dicom/deployment.yaml", "dicom/disruption.yaml")
"""No whole resources."""
VERSIONS = ("1.31", kubernetes_validate.latest_version())


def resource(kind: str) -> dict[str, Any]:
    (found,) = [document for document in RESOURCES if document["kind"] == kind]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", RESOURCES, ids=lambda document: str(document["kind"]))
def test_kubernetes_takes_it(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", [file for file in PARTS if file not in PATCHES])
def test_kubernetes_takes_what_a_component_adds(file: str, version: str) -> None:
    kubernetes_validate.validate(PARTS[file], version, strict=True)


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_has_all_its_files_and_fits(name: str) -> None:
    component = COMPONENTS[name]
    assert component["kind"] == "Component"
    files = {path.name for path in (FOLDER / name).glob("*.yaml")} - {"kustomization.yaml"}
    assert {file.split("/")[1] for file in PARTS if file.startswith(f"{name}/")} == files
    text = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    assert f"# components: [{', '.join(COMPONENTS)}]" in text
    labels = resource("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert PARTS[f"{name}/network.yaml"]["spec"]["podSelector"]["matchLabels"] == labels
    patched = PARTS[f"{name}/deployment.yaml"]
    assert patched["metadata"] == resource("Deployment")["metadata"]
    (container,) = patched["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "dermhybrid"


def test_the_components_environment_is_one_that_the_service_starts_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in COMPONENTS:
        pod = PARTS[f"{name}/deployment.yaml"]["spec"]["template"]["spec"]
        for variable in pod["containers"][0]["env"]:
            assert variable["name"].lower() in Settings.model_fields
            monkeypatch.setenv(variable["name"], variable["value"])
    monkeypatch.setenv("API_KEYS_FILE", "/etc/dermhybrid/keys.jsonl")
    settings = Settings()
    check_exposure(settings, "0.0.0.0")  # noqa: S104
    deployment, policy = PARTS["dicom/deployment.yaml"], PARTS["dicom/network.yaml"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == settings.dicom_listen_port
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == settings.dicom_listen_port
    service = PARTS["dicom/service.yaml"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["spec"]["type"] == "LoadBalancer"  # cameras are outside of the cluster
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    volumes = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
    }
    claims = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert claims == {
        str(settings.dicom_queue_dir): PARTS["dicom/volume.yaml"]["metadata"]["name"],
        str(settings.audit_dir): PARTS["dicom/audit-volume.yaml"]["metadata"]["name"],
    }
    # A photograph and results of its size, for every job that may be there.
    jobs = settings.dicom_max_waiting + settings.dicom_max_dead
    size = PARTS["dicom/volume.yaml"]["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) * 2**30 > jobs * settings.max_image_bytes * 1.5
    # One process owns a queue: never two, not for a moment.
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    assert PARTS["dicom/autoscaling.yaml"]["spec"]["maxReplicas"] == 1
    assert PARTS["dicom/disruption.yaml"]["$patch"] == "delete"
    assert PARTS["dicom/disruption.yaml"]["metadata"] == resource("PodDisruptionBudget")["metadata"]


def test_the_kustomization_has_all_files() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files


def test_one_place_names_the_image_and_one_how_many() -> None:
    specification = resource("Deployment")["spec"]
    (container,) = specification["template"]["spec"]["containers"]
    (image,) = KUSTOMIZATION["images"]
    assert container["image"] == image["name"]
    assert "replicas" not in specification
    assert resource("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2


def test_prometheus_in_the_cluster_finds_every_replica(tmp_path: Path) -> None:
    folder = REPOSITORY / "deploy" / "prometheus"
    config = yaml.safe_load((folder / "kubernetes.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    kept, dropped = job["relabel_configs"]
    # Ended pods stay in the list with addresses that are others' by then.
    assert dropped == {
        "source_labels": ["__meta_kubernetes_pod_phase"],
        "regex": "Failed|Succeeded",
        "action": "drop",
    }
    template = resource("Deployment")["spec"]["template"]
    name, port = kept["regex"].split(";")
    assert name == template["metadata"]["labels"]["app.kubernetes.io/name"]
    assert port in {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    alone = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    assert job["job_name"] == alone["scrape_configs"][0]["job_name"]
    assert {**config, "scrape_configs": None} == {**alone, "scrape_configs": None}
    # Debian's Prometheus has no Kubernetes in it: all else is asked of that one.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [require_program("promtool"), "check", "config", "--syntax-only", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path",
    [
        "keys.jsonl",
        "keys/keys.jsonl",
        "deploy/kubernetes/keys.jsonl",
        "deploy/prometheus/dermhybrid.key",
        "tls/site.crt",
        "tls/site.key",
        "model-key.pem",
    ],
)
def test_a_secret_is_not_committed_from_where_it_is_put(path: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=REPOSITORY, check=False)
    assert ignored.returncode == 0


def test_the_environment_is_one_that_the_service_starts_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pod = resource("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for variable in container["env"]:
        assert variable["name"].lower() in Settings.model_fields
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = Settings()
    assert settings.has_credentials
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "operations": settings.operations_port}
    (keys,) = [volume for volume in pod["volumes"] if volume["name"] == "keys"]
    assert keys["secret"]["secretName"] == KUSTOMIZATION["secretGenerator"][0]["name"]
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    (file,) = KUSTOMIZATION["secretGenerator"][0]["files"]
    assert settings.api_keys_file == mounts["keys"] / file
    longest = settings.drain_seconds + settings.shutdown_grace_seconds
    assert pod["terminationGracePeriodSeconds"] > longest


def test_it_may_do_no_more_than_it_needs() -> None:
    pod = resource("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(resource("NetworkPolicy")["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_everything_selects_the_same_pods() -> None:
    labels = resource("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert resource("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert resource("Service")["spec"]["selector"] == labels
    assert resource("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert resource("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    target = resource("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == resource("Deployment")["metadata"]["name"]
