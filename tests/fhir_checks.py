"""What a FHIR resource is held against: models, a validator, and the standard's own invariants."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import fhirpathpy
from fhir.resources.R4B import get_fhir_model_class
from fhirpathpy.models import models as fhirpath_models
from pyfhircheck.config import ValidatorConfig
from pyfhircheck.core.engine import Validator

from tests.programs import PEERS, require_peers

_DEFINITIONS = PEERS / "node_modules" / "@medplum" / "definitions" / "dist" / "fhir" / "r4"

_UNCHECKED = {"ele-1", "bdl-10", "txt-1"}
"""Of functions that fhirpathpy lacks: hasValue(), and htmlChecks()."""


@cache
def definitions(name: str) -> dict[str, Any]:
    """Of the standard, by canonical URL: a Bundle that comes with the test peers."""
    require_peers()
    entries = json.loads((_DEFINITIONS / f"{name}.json").read_text("utf-8"))["entry"]
    return {e["resource"]["url"]: e["resource"] for e in entries if "url" in e["resource"]}


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The resources of one kind in a Bundle."""
    found = [entry["resource"] for entry in bundle["entry"]]
    return [resource for resource in found if resource["resourceType"] == kind]


def model_errors(resource: dict[str, Any]) -> list[str]:
    """What `fhir.resources` finds against a resource."""
    try:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    except ValueError as error:
        return [str(error)]
    return []


@cache
def _validator() -> Validator:
    return Validator(ValidatorConfig())


def validator_errors(resource: dict[str, Any]) -> list[str]:
    """What `pyfhircheck` finds, but for references to what only the hospital's server has."""
    issues = _validator().validate_resource(resource).issues
    return [
        f"{issue.severity} {issue.path}: {issue.message}"
        for issue in issues
        if issue.code != "reference.unresolved"
    ]


def broken_invariants(resource: dict[str, Any]) -> list[str]:
    """Keys of the standard's FHIRPath invariants that a resource breaks, with their places."""
    return sorted(
        f"{key} at {path}"
        for path, key, expression in _invariants(resource["resourceType"])
        if _compiled(f"{path}.all({expression})")(resource, {"resource": resource}) != [True]
    ) + [
        broken
        for entry in resource.get("entry", [])
        if "resource" in entry
        for broken in broken_invariants(entry["resource"])
    ]


def checked_invariants(kind: str) -> set[str]:
    """Keys of what `broken_invariants` evaluates for a kind of resource."""
    return {key for _, key, _ in _invariants(kind)}


@cache
def _invariants(kind: str) -> list[tuple[str, str, str]]:
    """Path, key and FHIRPath of each invariant of a kind of resource."""
    url = f"http://hl7.org/fhir/StructureDefinition/{kind}"
    elements = definitions("profiles-resources")[url]["snapshot"]["element"]
    return [
        (element["path"].removesuffix("[x]"), constraint["key"], constraint["expression"])
        for element in elements
        for constraint in element.get("constraint", [])
        if constraint["severity"] == "error" and constraint["key"] not in _UNCHECKED
    ]


@cache
def _compiled(expression: str) -> Any:
    return fhirpathpy.compile(expression, model=fhirpath_models["r4"])


def dangling_references(bundle: dict[str, Any]) -> list[str]:
    """`urn:uuid` references that no entry of a Bundle has as its full URL."""
    full_urls = {entry["fullUrl"] for entry in bundle["entry"]}
    return [r for r in _references(bundle) if r.startswith("urn:") and r not in full_urls]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for child in value.values():
            yield from _references(child)
    elif isinstance(value, list):
        for child in value:
            yield from _references(child)


def assert_valid(resource: dict[str, Any]) -> None:
    """No check finds anything against a resource."""
    assert not model_errors(resource)
    assert not validator_errors(resource)
    assert not broken_invariants(resource)
    if resource["resourceType"] == "Bundle":
        assert not dangling_references(resource)
