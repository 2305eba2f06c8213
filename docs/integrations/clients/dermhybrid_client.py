"""A client of DermHybrid to copy into your own code: one file, Python 3.11 and `httpx2`.

    DERMHYBRID_KEY=dhk_... python dermhybrid_client.py http://localhost:8000 IMAGE

Research software, not a medical device. Read `Answer.action` before anything else: a rejected
answer has no class and no probability.

```
DermHybridError
├── Refused       what was sent cannot be answered; the same again is refused again
├── NotAllowed    the key is missing, unknown, or lacks a scope
└── Unavailable   no answer before the deadline, however often it was tried
```

Every call may be repeated, and is: an answer changes nothing, an instance that was sent twice is
the same job, and what is stored under the same request id is stored once. Only the audit log
counts an answer that was lost on the way.
"""

import base64
import os
import random
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import httpx2

Action = Literal["report", "refer", "reject"]
State = Literal["waiting", "answered", "stored", "refused", "dead", "discarded"]

LONGEST_PAUSE_SECONDS: Final = 8.0
"""Between two attempts, where the service does not say how long to wait."""
NOT_ALLOWED: Final = (401, 403)
AGAIN: Final = (408, 429, 503)
"""Too much at present, or not able to at present: worth another attempt."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What the service says of a failure (RFC 9457).

    Attributes:
        kind: Last part of its type, such as `image-corrupt`; README, "API", lists them.
        status: HTTP status.
        detail: What was expected and what came, for a person.
        request_id: To name to the service's operator.
    """

    kind: str
    status: int
    detail: str
    request_id: str


class DermHybridError(Exception):
    """There is no answer.

    Attributes:
        problem: What the service said; None where nothing came from it.
    """

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class Refused(DermHybridError):  # noqa: N818
    """What was sent cannot be answered: mend it, or ask for another picture."""


class NotAllowed(DermHybridError):  # noqa: N818
    """The service does not know the key, or the key may not do this."""


class Unavailable(DermHybridError):  # noqa: N818
    """No answer came before the deadline. Never take this for a result."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one picture.

    Attributes:
        action: `report`: nothing speaks against reading it; `refer`: a specialist must look;
            `reject`: there is no answer, and the next three are None.
        predicted_class: Label of HAM10000 (akiec, bcc, bkl, df, mel, nv, vasc).
        confidence: Its probability.
        probabilities: Of all seven; they sum to 1.
        reasons: Why the action is what it is.
        sentence: Action and reasons for a person.
        model: `name@version`.
        overlay: PNG of the picture under its heatmap; None where none was drawn.
        request_id: In the service's audit log.
        notice: To be shown wherever the answer is.
    """

    action: Action
    predicted_class: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    reasons: tuple[str, ...]
    sentence: str
    model: str
    overlay: bytes | None
    request_id: str
    notice: str


@dataclass(frozen=True, slots=True)
class Job:
    """A DICOM photograph that is answered in the archive.

    Attributes:
        id: Of the job.
        state: `stored`, `refused`, `dead` and `discarded` are ends.
        problem: Kind of the last failure.
        results: SOP Instance UIDs of the report, and of the heatmap.
    """

    id: str
    state: State
    problem: str | None
    results: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state not in ("waiting", "answered")


class DermHybrid:
    """A service. One instance may be used by many threads."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        deadline_seconds: float = 60.0,
        attempt_seconds: float = 30.0,
    ) -> None:
        """Open connections.

        Args:
            url: Of the service: https beyond this machine, for the key and the pictures.
            key: API key or access token; None where the service asks for none.
            deadline_seconds: For a call, with all its attempts and pauses. No attempt begins after
                it; one that has begun may outlast it where its answer comes in single drops, for
                httpx bounds each read.
            attempt_seconds: For one attempt, as the service is told; it allows 120 at most.
        """
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # No proxy, no .netrc: pictures and key go to no address that was not named.
        self._http = httpx2.Client(base_url=url, headers=headers, trust_env=False)
        self._deadline_seconds, self._attempt_seconds = deadline_seconds, attempt_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._http.close()

    def predict(
        self,
        image: bytes,
        *,
        model: str | None = None,
        heatmap: bool = True,
        request_id: str | None = None,
    ) -> Answer:
        """Ask about one picture.

        Args:
            image: JPEG, PNG, TIFF or WebP, or a DICOM photograph; the file's bytes.
            model: `name` or `name@version`; None for the service's choice.
            heatmap: Whether to draw one.
            request_id: Your own, up to 64 of `A-Za-z0-9._-`.

        Raises:
            Refused: The picture cannot be answered; `problem.detail` says why.
            NotAllowed: The key does not do.
            Unavailable: There was no answer in time.
        """
        query = {"heatmap": "true" if heatmap else "false"}
        if model is not None:
            query["model"] = model
        body = self._ask("POST", "/predict", image, "application/octet-stream", query, request_id)
        predicted, drawn = body["predicted_class"], body["heatmap"]
        return Answer(
            action=cast(Action, body["decision"]["action"]),
            predicted_class=predicted and predicted["label"],
            confidence=body["confidence"],
            probabilities=body["probabilities"],
            reasons=tuple(body["decision"]["reasons"]),
            sentence=body["decision"]["sentence"],
            model=f"{body['model']['name']}@{body['model']['version']}",
            overlay=None if drawn is None else base64.b64decode(drawn["overlay"]),
            request_id=body["request_id"],
            notice=body["notice"],
        )

    def send_dicom(self, instance: bytes) -> Job:
        """Have a DICOM photograph answered in the archive; it is on the service's disk then.

        Raises:
            Refused: It is no photograph that can be answered.
            NotAllowed: The key does not do.
            Unavailable: It was not taken in time.
        """
        body = self._ask("POST", "/dicom/studies", instance, "application/dicom")
        return _job(body["jobs"][0])

    def find_job(self, identifier: str) -> Job:
        """What became of a photograph.

        Raises:
            Refused: There is no such job.
            NotAllowed: The key does not do.
            Unavailable: There was no answer in time.
        """
        return _job(self._ask("GET", f"/dicom/jobs/{identifier}"))

    def _ask(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        media_type: str | None = None,
        query: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """Ask until there is an answer, a refusal, or no time left."""
        end = time.monotonic() + self._deadline_seconds
        # The same in each attempt: the service's records show that it was one question.
        headers = {"X-Request-ID": request_id or uuid.uuid4().hex}
        if media_type is not None:
            headers["Content-Type"] = media_type
        attempt = 0
        while True:
            seconds = max(0.001, min(self._attempt_seconds, end - time.monotonic()))
            headers["X-Request-Timeout"] = f"{seconds:.3f}"
            pause = random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_SECONDS, 2.0**attempt)  # noqa: S311
            try:
                response = self._http.request(
                    method, path, content=content, params=query, headers=headers, timeout=seconds
                )
            except httpx2.TransportError as error:
                failure: DermHybridError = Unavailable(f"No answer: {type(error).__name__}.")
            else:
                if response.is_success:
                    return cast(dict[str, Any], response.json())
                failure = _failure(response)
                if response.status_code not in AGAIN:
                    raise failure
                pause = _retry_after(response) or pause
            attempt += 1
            if time.monotonic() + pause >= end:
                raise failure
            time.sleep(pause)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the service asks to wait for, and a little more: not all come at once."""
    given = response.headers.get("retry-after", "")
    return float(given) + random.uniform(0, 0.5) if given.isdigit() else None  # noqa: S311


def _failure(response: httpx2.Response) -> DermHybridError:
    try:
        body = response.json()
        kind = str(body["type"]).rpartition(":")[2]
        problem = Problem(
            kind, response.status_code, str(body["detail"]), str(body.get("request_id", ""))
        )
    except (ValueError, KeyError, TypeError):  # from a proxy
        problem = Problem("not-from-the-service", response.status_code, "", "")
    message = f"{problem.status} {problem.kind}: {problem.detail}"
    if problem.status in NOT_ALLOWED:
        return NotAllowed(message, problem)
    if problem.status >= 500 or problem.status in AGAIN:
        return Unavailable(message, problem)
    return Refused(message, problem)


def _job(body: Mapping[str, Any]) -> Job:
    return Job(body["id"], cast(State, body["state"]), body["problem"], tuple(body["results"]))


def main() -> None:
    """Ask about a file; the decision comes first."""
    url, path = sys.argv[1:]
    with DermHybrid(url, os.environ.get("DERMHYBRID_KEY")) as service:
        try:
            answer = service.predict(Path(path).read_bytes(), heatmap=False)
        except DermHybridError as error:
            sys.exit(str(error))
    found = "no class" if answer.predicted_class is None else answer.predicted_class
    sys.stdout.write(f"{answer.action}: {answer.sentence}\n{found} ({answer.model})\n")
    sys.stdout.write(f"{answer.notice}\n")


if __name__ == "__main__":
    main()
