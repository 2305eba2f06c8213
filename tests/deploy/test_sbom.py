"""`make sbom` lists what the container image installs, each with its origin and digest."""

import json
import re
import subprocess
import tomllib

from tests.conftest import REPOSITORY


def test_the_sbom_lists_what_the_image_installs() -> None:
    subprocess.run(["make", "sbom"], cwd=REPOSITORY, check=True, capture_output=True)
    document = json.loads((REPOSITORY / "dist" / "sbom.cdx.json").read_text(encoding="utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert document["metadata"]["component"]["name"] == "dermhybrid"
    components = {component["name"]: component for component in document["components"]}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    extras = set(re.findall(r"--extra (\w+)", dockerfile))
    assert "openvino" in extras
    needed = {
        re.split(r"[^A-Za-z0-9-]", requirement)[0]
        for requirement in [
            *project["dependencies"],
            *(needed for extra in extras for needed in project["optional-dependencies"][extra]),
        ]
    }
    # The image takes tensorflow-cpu in tensorflow's place.
    assert (needed - {"tensorflow"}) | {"tensorflow-cpu"} <= set(components)
    assert not {"tensorflow", "pytest", "ruff", "nncf", "mypy"} & set(components)
    for component in components.values():
        assert component["purl"].startswith(f"pkg:pypi/{component['name']}@")
        assert any(
            digest["alg"] == "SHA-256"
            for reference in component["externalReferences"]
            for digest in reference["hashes"]
        )
