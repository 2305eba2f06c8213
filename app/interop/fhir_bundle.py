"""An answer as a FHIR R4 transaction Bundle (ADR-0020).

```
Provenance ─ target ─> DiagnosticReport ─ result ─> Observations: predicted class,
     │                        │                     probabilities, decision
     └ agent ─> Device        └ media ─> Media: the heatmap
```
"""

from html import escape
from typing import Final
from uuid import UUID, uuid5

from app.domain.notice import RESEARCH_USE_NOTICE
from app.interop import fhir_observations as observations
from app.interop.fhir_codes import (
    AI_ASSERTED,
    AI_DEVICE,
    ANSWER_SYSTEM,
    AUTHOR,
    CREATED,
    IMAGE,
    IMAGING,
    IMAGING_SERVICE,
    MODEL_DIGEST_SYSTEM,
    MODEL_SYSTEM,
    REPORT_CODE,
    REQUEST_SYSTEM,
    UPLOAD_DIGEST_SYSTEM,
    Json,
    coding,
    concept,
    decision_concept,
    own,
)
from app.interop.fhir_finding import Finding, Overlay

_FULL_URLS: Final = UUID("6b1f0bb4-0d7e-4f57-9f0c-3b3f1d1f6a55")
"""Namespace of the Bundle's `urn:uuid`s."""


def make_bundle(finding: Finding) -> Json:
    """Write an answer down.

    Args:
        finding: The answer.

    Returns:
        A transaction Bundle. Each resource is created once, however often the Bundle is sent.
        A rejected answer has no class and no probability in it.
    """
    return _Writer(finding).bundle()


class _Writer:
    """Writes one answer's resources, which refer to one another."""

    def __init__(self, finding: Finding) -> None:
        self._finding = finding
        self._entries: list[Json] = []
        context = finding.context
        self._device = self._add_device()
        self._about = _present(
            subject=context.subject and {"reference": context.subject},
            encounter=context.encounter and {"reference": context.encounter},
            basedOn=context.based_on and [{"reference": context.based_on}],
        )
        study = context.imaging_study
        self._study = [{"reference": study}] if study else []

    def bundle(self) -> Json:
        finding, found = self._finding, self._finding.classified
        media = [self._add_media(finding.overlay)] if finding.overlay else []
        results = [self._add_observation("predicted-class", observations.predicted_class(finding))]
        if found is not None:
            content = observations.class_probabilities(finding, found)
            results.append(self._add_observation("class-probabilities", content))
        results.append(self._add_observation("decision", observations.decision(finding)))
        report = self._add_report(results, media)
        self._add_provenance([report, *results, *media])
        return {
            "resourceType": "Bundle",
            "type": "transaction",
            "timestamp": self._now,
            "entry": self._entries,
        }

    @property
    def _now(self) -> str:
        return self._finding.given_at.isoformat(timespec="milliseconds")

    def _add_device(self) -> Json:
        model = self._finding.model
        device = {
            "identifier": [
                {"system": MODEL_DIGEST_SYSTEM, "value": model.digest},
                {"system": MODEL_SYSTEM, "value": model.qualified_name},
            ],
            "status": "active",
            "deviceName": [{"name": model.title, "type": "model-name"}],
            "modelNumber": model.name,
            "type": AI_DEVICE,
            "version": [{"value": str(model.version)}],
            "note": [{"text": RESEARCH_USE_NOTICE}],
            **_present(
                property=[
                    {
                        "type": own("ensemble-member", "Member of the ensemble"),
                        "valueCode": [
                            concept(f"SHA-256 {digest}", coding(MODEL_SYSTEM, member, member))
                        ],
                    }
                    for member, digest in model.members
                ]
            ),
        }
        words = f"{model.title}. {RESEARCH_USE_NOTICE}"
        return self._add(
            "Device", device, f"identifier={MODEL_DIGEST_SYSTEM}|{model.digest}", words
        )

    def _add_observation(self, part: str, content: Json) -> Json:
        observation = {
            **self._labelled(part),
            "status": "preliminary",
            "category": [IMAGING],
            **self._about,
            "issued": self._now,
            **_present(derivedFrom=self._study),
            "device": self._device,
            **content,
        }
        value = content.get("valueCodeableConcept", content.get("dataAbsentReason"))
        words = f"{content['code']['text']}: " + (value["text"] if value else "see the components")
        return self._add("Observation", observation, self._identified(part), words)

    def _add_media(self, overlay: Overlay) -> Json:
        media = {
            **self._labelled("heatmap"),
            "status": "completed",
            "type": IMAGE,
            **self._about,
            "issued": self._now,
            "device": self._device,
            "width": overlay.width,
            "height": overlay.height,
            "content": {
                "contentType": overlay.media_type,
                "data": overlay.data,
                "title": overlay.title,
            },
            "note": [
                {"text": RESEARCH_USE_NOTICE},
                *({"text": warning} for warning in overlay.warnings),
            ],
        }
        words = f"{overlay.title}. {RESEARCH_USE_NOTICE}"
        return self._add("Media", media, self._identified("heatmap"), words)

    def _add_report(self, results: list[Json], media: list[Json]) -> Json:
        finding, found = self._finding, self._finding.classified
        sentences = [finding.decision.sentence]
        if found is not None:
            sentences.append(
                f"Most probable of seven classes: {found.predicted.name}, with probability "
                f"{found.confidence:.2f}{'' if found.calibrated else ' (not calibrated)'}."
            )
        if finding.frame is not None:
            sentences.append(f"This is about frame {finding.frame} of the uploaded image.")
        conclusion = " ".join([*sentences, RESEARCH_USE_NOTICE])
        decision = decision_concept(finding.decision.action, finding.decision.sentence)
        report = {
            **self._labelled("report"),
            # For whoever reads or searches for reports alone.
            "meta": {"security": [AI_ASSERTED], "tag": decision["coding"]},
            "status": "preliminary",
            "category": [IMAGING_SERVICE],
            "code": own(REPORT_CODE, "AI classification of a dermatoscopic image (research use)"),
            **self._about,
            "issued": self._now,
            "result": results,
            **_present(
                imagingStudy=self._study,
                media=[{"comment": "Heatmap", "link": link} for link in media],
            ),
            "conclusion": conclusion,
        }
        report["identifier"].append({"system": REQUEST_SYSTEM, "value": finding.request_id})
        return self._add("DiagnosticReport", report, self._identified("report"), conclusion)

    def _add_provenance(self, targets: list[Json]) -> None:
        finding = self._finding
        image = "The uploaded image, by its SHA-256"
        upload = {
            "identifier": {"system": UPLOAD_DIGEST_SYSTEM, "value": finding.upload_sha256},
            "display": image if finding.frame is None else f"{image}: frame {finding.frame} of it",
        }
        provenance = {
            # It has no identifier to be found by.
            "meta": {"tag": [{"system": ANSWER_SYSTEM, "code": self._name("provenance")}]},
            "target": targets,
            "recorded": self._now,
            "reason": [concept("Content asserted by an AI", AI_ASSERTED)],
            "activity": CREATED,
            "agent": [{"type": AUTHOR, "who": self._device}],
            "entity": [{"role": "source", "what": what} for what in [upload, *self._study]],
        }
        condition = f"_tag={ANSWER_SYSTEM}|{self._name('provenance')}"
        self._add("Provenance", provenance, condition, "Who answered, and of which image")

    def _labelled(self, part: str) -> Json:
        """The beginning of what the AI asserts."""
        return {
            "meta": {"security": [AI_ASSERTED]},
            "identifier": [{"system": ANSWER_SYSTEM, "value": self._name(part)}],
        }

    def _name(self, part: str) -> str:
        return f"{self._finding.key}.{part}"

    def _identified(self, part: str) -> str:
        return f"identifier={ANSWER_SYSTEM}|{self._name(part)}"

    def _add(self, kind: str, resource: Json, condition: str, words: str) -> Json:
        """Add a resource that is created where the condition finds none; return its reference."""
        # Servers replace the full URL wherever it stands: it must not be an identifier as well.
        full_url = uuid5(_FULL_URLS, f"{kind}?{condition}").urn
        paragraph = f"<p>{escape(words)}</p>"
        text = {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraph}</div>',
        }
        self._entries.append(
            {
                "fullUrl": full_url,
                "resource": {"resourceType": kind, "text": text, **resource},
                "request": {"method": "POST", "url": kind, "ifNoneExist": condition},
            }
        )
        return {"reference": full_url, "type": kind}


def _present(**elements: object) -> Json:
    """The elements that are there: FHIR has no empty ones."""
    return {name: value for name, value in elements.items() if value}
