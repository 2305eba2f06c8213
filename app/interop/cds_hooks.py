"""CDS Hooks 2.0: a card about the newest answer that is in a patient's record (ADR-0021).

https://cds-hooks.hl7.org/2.0/
"""

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.domain.decision import Action
from app.domain.notice import RESEARCH_USE_NOTICE
from app.interop.fhir_codes import (
    ANSWER_SYSTEM,
    CODE_SYSTEM,
    DECISION_SYSTEM,
    REPORT_CODE,
    Json,
)

SERVICE_ID: Final = "dermhybrid-newest-answer"
PREFETCH_KEY: Final = "reports"
_MAX_CONCLUSION: Final = 1500
_ANSWER_NAME: Final = re.compile(r"[0-9a-f]{32}\.[a-z-]{1,32}")
"""As this service names its answers; nothing else can come into a record by it."""
_SOURCE: Final = {"label": "DermHybrid (research software, not a medical device)"}
_SUMMARIES: Final = {
    Action.REPORT: "AI (research use): an answer for a skin lesion is in the record",
    Action.REFER: "AI (research use): a specialist has to look at a picture of a skin lesion",
    Action.REJECT: "AI (research use): a picture of a skin lesion could not be answered",
}
"""Of less than 140 characters with a date, as the standard wants."""
_WITHDRAWN: Final = frozenset({"entered-in-error", "cancelled"})
"""FHIR's `status` of a report that does not count any more."""


class _Element(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class HookContext(_Element):
    """Of a `patient-view`."""

    patient_id: Annotated[str, Field(alias="patientId", pattern=r"^[A-Za-z0-9\-.]{1,64}$")]


class HookRequest(_Element):
    """A call of the service.

    `fhirServer` and `fhirAuthorization` are not read: no address that a caller gives is asked.
    """

    hook: Literal["patient-view"]
    hook_instance: Annotated[uuid.UUID, Field(alias="hookInstance")]
    context: HookContext
    prefetch: dict[str, Any] | None = None


def discovery() -> Json:
    """What `GET /cds-services` says."""
    query = {f"{k}={v}" for k, v in report_query("{{context.patientId}}").items()}
    return {
        "services": [
            {
                "hook": "patient-view",
                "id": SERVICE_ID,
                "title": "DermHybrid: newest answer",
                "description": f"The newest AI answer about a skin lesion. {RESEARCH_USE_NOTICE}",
                "prefetch": {PREFETCH_KEY: "DiagnosticReport?" + "&".join(sorted(query))},
            }
        ]
    }


def report_query(patient_id: str) -> dict[str, str]:
    """The search for a patient's newest answers."""
    return {
        "subject": f"Patient/{patient_id}",
        "code": f"{CODE_SYSTEM}|{REPORT_CODE}",
        "_sort": "-issued",
        "_count": "10",
    }


def prefetched(request: HookRequest) -> list[Any] | None:
    """The reports that came with a call; None where no Bundle did.

    A client whose search failed sends null or an OperationOutcome: that is not to have no report.
    """
    bundle = (request.prefetch or {}).get(PREFETCH_KEY)
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        return None
    entries = bundle.get("entry")
    listed = entries if isinstance(entries, list) else []
    return [e.get("resource") for e in listed if isinstance(e, dict)]


@dataclass(frozen=True, slots=True)
class FiledAnswer:
    """An answer that is in a patient's record.

    Attributes:
        issued: When it was given.
        action: What is to become of it.
        conclusion: In words, of any origin.
        name: Its identifier of `urn:dermhybrid:answer`; None where it has none of this service.
        num_referred_before: How many older ones ask for a specialist; they may be of other lesions.
    """

    issued: datetime
    action: Action
    conclusion: str
    name: str | None
    num_referred_before: int = 0


def newest_answer(reports: Iterable[Any], patient_id: str) -> FiledAnswer | None:
    """The newest answer of this service about a patient; None where there is none.

    Args:
        reports: What was found, of any origin; everything else is passed over.
        patient_id: Whose record is looked at.
    """
    answers = [
        FiledAnswer(issued, action, str(report.get("conclusion", "")), _name(report))
        for report in reports
        if (action := _action(report, patient_id)) and (issued := _issued(report))
    ]
    if not answers:
        return None
    newest = max(answers, key=lambda answer: answer.issued)
    referred = [answer for answer in answers if answer.action is Action.REFER]
    return replace(newest, num_referred_before=len(referred) - (newest in referred))


def make_card(answer: FiledAnswer, viewer_url: str | None) -> Json:
    """A card about an answer.

    Args:
        answer: Of the record.
        viewer_url: Where people open this service's viewer; None for a card without a link.
    """
    number = answer.num_referred_before
    older = f"; of older ones {number} to be referred" if number else ""
    paragraphs = [_as_markdown(answer.conclusion[:_MAX_CONCLUSION])]
    if number:
        paragraphs.append(
            f"Of the older answers in the record {number} asked for a specialist. They may be of "
            "other lesions: this one replaces none of them."
        )
    card: Json = {
        "uuid": str(uuid.uuid4()),
        "summary": f"{_SUMMARIES[answer.action]}{older} ({answer.issued.date().isoformat()})",
        "indicator": "info" if answer.action is Action.REPORT and not number else "warning",
        "detail": "\n\n".join([*paragraphs, f"**{RESEARCH_USE_NOTICE}**"]),
        "source": _SOURCE,
    }
    if viewer_url is not None:
        card["links"] = [{"label": "Open the viewer", "url": viewer_url, "type": "absolute"}]
    return card


def _action(report: Any, patient_id: str) -> Action | None:
    """What an answer says is to become of it; None for what is no answer about this patient.

    Or not any more: a report that was withdrawn is none.
    """
    if not isinstance(report, dict) or report.get("resourceType") != "DiagnosticReport":
        return None
    status = report.get("status")
    if not isinstance(status, str) or status in _WITHDRAWN:
        return None
    subject = _member(report, "subject", "reference")
    codes = _codes(_member(report, "code", "coding"), CODE_SYSTEM)
    decisions = _codes(_member(report, "meta", "tag"), DECISION_SYSTEM) & set(Action)
    about_patient = isinstance(subject, str) and re.search(
        rf"(?:^|/)Patient/{re.escape(patient_id)}(?:/_history/|$)", subject
    )
    if not about_patient or REPORT_CODE not in codes or len(decisions) != 1:
        return None
    return Action(decisions.pop())


def _name(report: Json) -> str | None:
    identifiers = report.get("identifier")
    for identifier in identifiers if isinstance(identifiers, list) else []:
        if isinstance(identifier, dict) and identifier.get("system") == ANSWER_SYSTEM:
            value = str(identifier.get("value"))
            return value if _ANSWER_NAME.fullmatch(value) else None
    return None


def _member(value: Any, first: str, second: str) -> Any:
    child = value.get(first)
    return child.get(second) if isinstance(child, dict) else None


def _codes(codings: Any, system: str) -> set[str]:
    found = codings if isinstance(codings, list) else []
    return {str(c.get("code")) for c in found if isinstance(c, dict) and c.get("system") == system}


def _issued(report: Json) -> datetime | None:
    try:
        issued = datetime.fromisoformat(str(report.get("issued")))
    except ValueError:
        return None
    return issued if issued.tzinfo else issued.replace(tzinfo=UTC)


def _as_markdown(text: str) -> str:
    """Text that a Markdown reader shows as it is: no link, picture or element comes of it.

    Addresses are taken apart: GitHub's Markdown, which cards are in, makes links of bare ones.
    """
    apart = re.sub(r"(?i)(?<=:)(?=//)|(?<=\bwww)(?=\.)", " ", " ".join(text.split()))
    return re.sub(r"([^\w\s.,;:()%'/]|_)", r"\\\1", apart)
