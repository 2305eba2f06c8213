"""The hospital's FHIR server: answers are stored on it, and looked up (ADR-0021)."""

import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx2

from app.domain.errors import FhirServerError
from app.interop.fhir_codes import FHIR_MEDIA_TYPE, Json
from app.interop.smart_backend import TokenSource

MAX_ATTEMPTS: Final = 3
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_FIRST_WAIT_SECONDS: Final = 0.2
_PASSING: Final = frozenset({429, 502, 503, 504})
_LOCATION: Final = re.compile(r"(?:^|/)(DiagnosticReport/[A-Za-z0-9\-.]{1,64})(?:/_history/|$)")


class FhirServer:
    """One FHIR server, that the service's operator has named."""

    def __init__(
        self, client: httpx2.AsyncClient, base_url: str, tokens: TokenSource | None
    ) -> None:
        """Keep the address; nothing is asked yet.

        Args:
            client: Sends requests, with its own limits on time; it is closed with this.
            base_url: Of the server.
            tokens: For servers that want them.
        """
        self._client, self._base_url, self._tokens = client, base_url.rstrip("/"), tokens

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def store(self, bundle: bytes) -> str:
        """Store a transaction Bundle, whole or not at all.

        It is tried again where the server or the way to it fails for the moment: the Bundle's
        conditional creates make a repeat harmless.

        Returns:
            `DiagnosticReport/...`, as the server has named it.

        Raises:
            FhirServerError: It could not be stored, or it is not known whether it was.
        """
        answer = await self._request(self._base_url, bundle, {"Content-Type": FHIR_MEDIA_TYPE})
        responses = _parts(answer, "response")
        statuses = [str(response.get("status", "")) for response in responses]
        locations = [_LOCATION.search(str(response.get("location", ""))) for response in responses]
        reports = [found.group(1) for found in locations if found]
        if not reports or not all(status.startswith("2") for status in statuses):
            raise FhirServerError("The FHIR server did not store every resource of the answer.")
        return reports[0]

    async def search(self, kind: str, query: Mapping[str, str]) -> Sequence[Json]:
        """Search for resources.

        The query is a form in the body: an address is written into logs on the way.

        Args:
            kind: Of resource.
            query: Search parameters.

        Raises:
            FhirServerError: It could not be searched.
        """
        form = str(httpx2.QueryParams(dict(query))).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._request(f"{self._base_url}/{kind}/_search", form, headers)
        return _parts(answer, "resource")

    async def _request(self, url: str, content: bytes, headers: Mapping[str, str]) -> Json:
        failure = ""
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                # Half of it by chance, so that many do not come back at once.
                wait = _FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
                await asyncio.sleep(wait * (0.5 + random.random()))  # noqa: S311
            token = await self._tokens.get() if self._tokens else ""
            sent = {**headers, "Accept": FHIR_MEDIA_TYPE, "Prefer": "return=minimal"}
            if token:
                sent["Authorization"] = f"Bearer {token}"
            try:
                status, body = await self._send(url, content, sent)
            except httpx2.HTTPError as error:
                failure = type(error).__name__
                continue
            failure = f"status {status}"
            if status == 401 and self._tokens:
                self._tokens.forget(token)
            elif status < 300:
                return _parse(body)
            elif status not in _PASSING:
                # What the server says may be about the patient: it is not repeated.
                raise FhirServerError(
                    f"The FHIR server refused the request ({failure}). Check that what the "
                    "references name is on it; its operator has the reason."
                )
        raise FhirServerError(
            f"The FHIR server failed {MAX_ATTEMPTS} times ({failure}). Repeat the request later, "
            "with the same X-Request-ID: nothing is stored twice."
        )

    async def _send(
        self, url: str, content: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        body = bytearray()
        async with self._client.stream(
            "POST", url, content=content, headers=dict(headers)
        ) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise FhirServerError(
                        f"The FHIR server's answer is longer than {MAX_ANSWER_BYTES:,} bytes."
                    )
        return response.status_code, bytes(body)


def _parse(body: bytes) -> Json:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or answer.get("resourceType") != "Bundle":
        raise FhirServerError("The FHIR server did not answer with a Bundle.")
    return answer


def _parts(bundle: Json, name: str) -> list[dict[str, Any]]:
    """What the entries of a Bundle have by a name, as far as it is of the right type."""
    entries = bundle.get("entry")
    found = (
        [e.get(name) for e in entries if isinstance(e, dict)] if isinstance(entries, list) else ()
    )
    return [part for part in found if isinstance(part, dict)]
