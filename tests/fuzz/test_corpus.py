"""The fuzzer's corpus, and slight damage to all of it, without the fuzzer."""

from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.targets import CORPUS, TARGETS

FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
REFUSED = {"two-pages.tiff", "runs.bmp", "other.gif", "cut.jpg", "frames.dcm", "cut.dcm"}
NUM_DAMAGED = 40
MAX_FILE_BYTES = 8192
EDGES = (0, 1, 0x7F, 0x80, 0xFF)
"""Bytes that counters and lengths are at their bounds with."""


def test_there_is_a_corpus_for_each_target() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert max(path.stat().st_size for path in FILES) <= MAX_FILE_BYTES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_read_or_refused_whatever_its_bytes(path: Path) -> None:
    decode, data = TARGETS[path.parent.name], path.read_bytes()
    if not path.name.startswith("crash-"):
        assert decode(data) == (path.name not in REFUSED)
    random = np.random.default_rng(len(data))
    for _ in range(NUM_DAMAGED):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 6)):
            damaged[place] = (*EDGES, random.integers(256))[random.integers(len(EDGES) + 1)]
        decode(bytes(damaged))
        decode(bytes(damaged[: random.integers(len(data))]))
