"""What a JPEG 2000 stream makes its decoder allocate, bounded before it is decoded.

The decoder keeps a structure for each tile, each precinct and each code block, whatever they hold:
half a kilobyte of headers announces forty gigabytes of them. Marker segments are those of
ITU-T T.800, annex A.
"""

import math
import struct
from collections.abc import Iterator
from typing import Final

from app.domain.errors import ImageCorruptError, ImageFormatError

MAX_TILES: Final = 1024
MAX_BLOCKS: Final = 100_000
"""Precincts and code blocks of the picture; 25 megapixels in blocks of 64 x 64 have 25,000."""

MAX_LAYERED_BLOCKS: Final = 10_000_000
"""Precincts and code blocks times quality layers, of which encoders write twenty at most."""

MAX_TILE_PARTS: Final = 10_000

_START: Final = b"\xff\x4f\xff\x51"
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
_READ: Final = frozenset(
    {_SIZ, _COD, _COC, 0xFF55, 0xFF57, 0xFF58, 0xFF5C, 0xFF5D}
    | {0xFF5E, 0xFF5F, 0xFF60, 0xFF61, 0xFF63, 0xFF64}
)
"""And TLM, PLM, PLT, QCD, QCC, RGN, POC, PPM, PPT, CRG and COM. Behind another one the decoder
looks for the next that it knows, wherever that is."""

_SIZE: Final = struct.Struct(">H8IH")
_STYLE: Final = struct.Struct(">BBHB5B")
_WHOLE_PRECINCT: Final = 0xFF
"""Logarithms of height and width, four bits each, where none are given."""


def check_jpeg2000(stream: bytes) -> None:
    """Bound tiles, precincts, code blocks and layers.

    Args:
        stream: A codestream, as DICOM has it (PS3.5, section A.4.4), of any origin.

    Raises:
        ImageFormatError: Components or tiles have coding styles of their own.
        ImageCorruptError: No bare codestream, or one whose headers cannot be read, or announce
            more than the bounds.
    """
    if not stream.startswith(_START):
        raise ImageCorruptError(
            "The frame is no JPEG 2000 stream; expected one without a file format around it."
        )
    try:
        num_blocks, num_layers = _count_blocks(stream)
        _check_tile_headers(stream)
    except (struct.error, ZeroDivisionError, IndexError) as error:
        raise ImageCorruptError(
            "The JPEG 2000 stream's header is truncated or damaged. Export the picture again."
        ) from error
    if num_blocks > MAX_BLOCKS or num_blocks * num_layers > MAX_LAYERED_BLOCKS:
        raise ImageCorruptError(
            f"The JPEG 2000 stream has some {num_blocks:,} precincts and code blocks in "
            f"{num_layers:,} layers; at most {MAX_BLOCKS:,}, and {MAX_LAYERED_BLOCKS:,} times "
            "layers, are accepted. Export the picture with code blocks of 64 x 64."
        )


def _count_blocks(stream: bytes) -> tuple[int, int]:
    """Precincts and code blocks of the whole picture, at most; quality layers."""
    found: dict[int, bytes] = {}
    for marker, segment in _segments(stream, 2):
        if marker in found and marker in (_SIZ, _COD):
            raise ImageCorruptError("The JPEG 2000 stream has two sizes or styles.")
        found[marker] = segment
    if _SIZ not in found or _COD not in found or _COC in found:
        raise ImageFormatError(
            "The JPEG 2000 stream has no coding style, or one for each component; expected one "
            "for all. Export the picture again."
        )
    _, right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, components = (
        _SIZE.unpack_from(found[_SIZ])
    )
    width, height = max(right - left, 0), max(bottom - top, 0)
    num_tiles = math.ceil((right - tiles_left) / tile_width) * math.ceil(
        (bottom - tiles_top) / tile_height
    )
    if num_tiles > MAX_TILES:
        raise ImageCorruptError(
            f"The JPEG 2000 stream has some {num_tiles:,} tiles; at most {MAX_TILES:,} are "
            "accepted. Export the picture in one tile."
        )
    flags, _, num_layers, _, levels, block_width, block_height, _, _ = _STYLE.unpack_from(
        found[_COD]
    )
    precincts = found[_COD][_STYLE.size :]
    blocks = 0
    for resolution in range(levels + 1):
        scale = 2 ** (levels - resolution)
        columns = math.ceil(min(tile_width, width) / scale)
        rows = math.ceil(min(tile_height, height) / scale)
        log = precincts[resolution] if flags & 1 else _WHOLE_PRECINCT
        across, down = log & 0xF, log >> 4
        blocks += _num_cells(columns, rows, across, down)
        # All but the lowest resolution are halved for their bands, and precincts with them.
        half = int(resolution > 0)
        blocks += _num_cells(
            columns, rows, min(block_width + 2, across - half), min(block_height + 2, down - half)
        )
    return blocks * num_tiles * components, num_layers


def _num_cells(columns: int, rows: int, log_width: int, log_height: int) -> int:
    """Cells of a grid over so many samples, at most, by the logarithms of a cell's sides."""
    return (math.ceil(columns / 2**log_width) + 1) * (math.ceil(rows / 2**log_height) + 1)


def _check_tile_headers(stream: bytes) -> None:
    """Refuse tiles with styles of their own, which would escape the count."""
    start = struct.pack(">HH", _SOT, 10)
    if stream.count(start) > MAX_TILE_PARTS:
        raise ImageCorruptError(
            f"The JPEG 2000 stream has more than {MAX_TILE_PARTS:,} tile parts."
        )
    # No packet has these bytes (T.800, B.10.1), so that each is a tile part, or none that is read.
    position = stream.find(start)
    while position >= 0:
        for marker, _ in _segments(stream, position + 12):
            if marker in (_COD, _COC):
                raise ImageFormatError(
                    "The JPEG 2000 stream has tiles with coding styles of their own; expected one "
                    "style for all. Export the picture again."
                )
        position = stream.find(start, position + 12)


def _segments(stream: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """Marker segments of a header, up to the first tile part or data."""
    while True:
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker in (_SOT, _SOD):
            return
        if marker not in _READ or length < 2:
            raise ImageCorruptError(
                f"The JPEG 2000 stream has a marker {marker:#06x} in a header, which is not read. "
                "Export the picture again."
            )
        yield marker, stream[position + 4 : position + 2 + length]
        position += 2 + length
