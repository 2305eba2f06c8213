"""`deploy/ray/serve.yaml` is what Ray takes, and fits the service."""

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from app.ray_serve import NUM_OPERATIONS_PORTS, check_replicable
from app.settings import Settings
from tests.conftest import REPOSITORY

CONFIG = yaml.safe_load((REPOSITORY / "deploy/ray/serve.yaml").read_text(encoding="utf-8"))


def test_ray_takes_the_config_and_the_service_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ServeDeploySchema.model_validate(CONFIG)
    (application,) = CONFIG["applications"]
    for name, value in application["runtime_env"]["env_vars"].items():
        assert name.lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    settings = Settings()
    check_replicable(settings)
    assert settings.has_credentials
    assert CONFIG["http_options"]["request_timeout_s"] > settings.max_request_timeout_seconds
    (deployment,) = application["deployments"]
    scaling = deployment["autoscaling_config"]
    assert scaling["target_ongoing_requests"] == settings.max_batch_size
    assert scaling["max_replicas"] <= NUM_OPERATIONS_PORTS // 2  # all on one machine, and replaced
