"""What Schemathesis sends where the OpenAPI document says no more than "an image": pictures.

Loaded by the command that `test_openapi` runs, not by pytest.
"""

import json
from collections.abc import Sequence
from typing import Any

import schemathesis
from hypothesis import strategies as st

from app.domain.heatmaps import OverlayFormat, encode, encode_png
from app.domain.images import MEDIA_TYPES
from tests.dicom_photographs import lesion, make_dataset, to_bytes
from tests.pictures import sharp_lesion

PICTURES: Sequence[bytes] = (
    encode_png(sharp_lesion(320, 240)),
    encode(sharp_lesion(300, 300), OverlayFormat.JPEG),
)
DICOM = to_bytes(make_dataset(lesion()))


def damaged(whole: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Whole files, files that end too early, files with a wrong byte, and anything else."""
    files = st.sampled_from(whole)
    cut = st.builds(lambda file, end: file[:end], files, st.integers(0, 2000))
    wrong = st.builds(
        lambda file, place, byte: file[:place] + bytes([byte]) + file[place + 1 :],
        files,
        st.integers(0, 2000),
        st.integers(0, 255),
    )
    return st.one_of(files, cut, wrong, st.binary(max_size=2000))


for media_type in {*MEDIA_TYPES.values(), "application/octet-stream"}:
    schemathesis.openapi.media_type(media_type, damaged(PICTURES))
schemathesis.openapi.media_type("application/dicom", damaged([DICOM]))
schemathesis.openapi.format("binary", damaged(PICTURES))


@schemathesis.hook
def map_query(_context: object, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ask for a model that there is in one of two requests that name one."""
    if query and len(str(query.get("model", ""))) % 2:
        query["model"] = "ensemble"
    return query


@schemathesis.deserializer("application/x-ndjson")
def read_last_line(_context: object, response: schemathesis.Response) -> Any:
    """The schema is of each line."""
    return json.loads(response.content.splitlines()[-1])
