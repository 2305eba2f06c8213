"""`docs/quality.md` from `docs/results/quality.json`: `python -m training.quality_page`."""

import json
from pathlib import Path
from typing import Any, Final

from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.quality import ISSUES, QualityIssue
from training.markdown import table
from training.quality import PERCENTILES

SOURCE: Final = Path("docs/results/quality.json")
OUTPUT: Final = Path("docs/quality.md")

RELIABLE: Final = 0.9
"""Share of the degraded images from which a check counts as finding them."""
BLIND: Final = 0.2
"""Share below which it counts as missing them."""

_MEANING: Final = {
    "sharpness": "fine structure over coarse, decimal logarithm",
    "brightness": "lightness that a tenth of the pixels exceed, CIE L*",
    "clipped": "share of pixels with a channel at its end",
    "contrast": "standard deviation of lightness, CIE L*",
    "red_to_green": "of the skin",
    "blue_to_green": "of the skin",
    "shorter_side": "of the file, pixels",
    "lesion_contrast": "colour difference of what is least like the skin, CIE 1976",
    "lesion_offset": "of the centre of darkness from the middle, half sides",
    "hair": "share of pixels on long thin dark lines",
    "ink": "share of blue, violet or green pixels outside the lesion",
}


def main() -> None:
    """Rewrite the page."""
    measured = json.loads(SOURCE.read_text(encoding="utf-8"))
    OUTPUT.write_text(render(measured), encoding="utf-8")


def render(measured: dict[str, Any]) -> str:
    """The page as Markdown.

    Args:
        measured: What `training.quality.measure` gives.
    """
    sections = [
        _introduction(measured),
        _limits(measured),
        _ranges(measured),
        _flagged(measured),
        _degradations(measured),
    ]
    return "\n".join(line for section in sections for line in [*section, ""])


def _introduction(measured: dict[str, Any]) -> list[str]:
    return [
        "# What the quality checks find",
        "",
        "Written by `python -m training quality` from `docs/results/quality.json`. "
        f"{RESEARCH_USE_NOTICE}",
        "",
        f"The accepted ranges are percentiles of {measured['num_train']:,} images of HAM10000's "
        f"training part; what they flag was counted on {measured['num_validation']:,} images of "
        f"the validation part, and on degraded copies of {measured['num_degraded']:,} of them. The "
        "test part was not touched. Nobody labelled the quality of these images, and an issue says "
        "that a picture is unusual among them, not that its answer is wrong.",
    ]


def _limits(measured: dict[str, Any]) -> list[str]:
    missed = [
        f"{name} ({_percent(found['found'])})"
        for name, found in measured["degradations"].items()
        if found["found"] is not None and found["found"] < BLIND
    ]
    weak = [
        f"{name} ({_percent(found['found'])})"
        for name, found in measured["degradations"].items()
        if found["found"] is not None and BLIND <= found["found"] < RELIABLE
    ]
    lines = [
        "## What they cannot find",
        "",
        f"- Found in less than {_percent(BLIND)} of the degraded images, so as good as not at all: "
        f"{'; '.join(missed) or 'none of those tried'}.",
        f"- Found in some only: {'; '.join(weak) or 'none of those tried'}.",
        "- Not looked for at all: glare, gel bubbles, gauze, dressings, fingers, rulers, black or "
        "red ink, compression, noise. Noise even counts as sharpness, so a noisy picture is never "
        "`blurred`. A camera that smooths skin may be called `blurred` with its edges sharp.",
        "- The training pictures are of light skin. `too-dark` and `colour-cast` may flag darker "
        "skin without fault, and how often was not measured: there is no such data here. Whoever "
        "lets them reject pictures refuses patients by the colour of their skin.",
        "- Nothing asks whether a picture shows skin at all.",
        "- By eye, what is flagged among real images is what its name says for `hair`, `clipped`, "
        "`too-bright` and most of `too-dark`. `ink` is pens in about half of them, and else blue "
        "or black lesions whose outline was not found. `no-lesion` are faint lesions. "
        "`blurred` are soft, not useless.",
        "- Hairs, ink and bare skin of the copies are drawn or patched: simpler than real ones.",
    ]
    lesion = measured["lesion"]
    if lesion is not None:
        lines.append(
            "- `find_lesion`, which says where skin and where ink is looked for, agrees with the "
            f"published masks by a Jaccard index of {lesion['median_jaccard']:.2f} in the median, "
            f"and misses the lesion (below 0.3) in {_percent(lesion['share_below_0.3'])} of images."
        )
    return lines


def _ranges(measured: dict[str, Any]) -> list[str]:
    header = ["score", "what it is", *(f"{p:g} %" for p in PERCENTILES), "accepted", "otherwise"]
    rows = []
    for name, found in measured["scores"].items():
        percentiles = found["percentiles"] or [None] * len(PERCENTILES)
        low, high = found["accepted"]
        sides = zip(ISSUES[name], ("below", "above"), strict=True)
        issues = [f"{side}: `{issue.value}`" for issue, side in sides if issue]
        numbers = ["" if value is None else f"{value:g}" for value in percentiles]
        rows.append([f"`{name}`", _MEANING[name], *numbers, _range(low, high), ", ".join(issues)])
    return [
        "## Accepted ranges",
        "",
        "All scores but `shorter_side` are of the 224 x 224 model input, outside of the "
        "dermatoscope's black frame (`app/domain/quality_scores.py` has the methods and their "
        "sources). The columns are percentiles of the training images. A file must have as many "
        "pixels as the model looks at. `sharpness` depends a little on earlier resizing: the same "
        "42 images scored 0.045 lower at 600 x 450 than at 299 x 224, which these were measured "
        "from.",
        "",
        *table(header, rows),
    ]


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return "" if high is None else f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"


def _flagged(measured: dict[str, Any]) -> list[str]:
    flagged = measured["flagged"]
    issues = [
        [f"`{issue.value}`", _percent(flagged["by_issue"][issue.value], 1)]
        for issue in QualityIssue
    ]
    classes = [[name, _percent(share, 1)] for name, share in flagged["by_class"].items()]
    return [
        "## Real images that are flagged",
        "",
        f"{_percent(flagged['any'], 1)} of the validation images have an issue or more:",
        "",
        *table(["issue", "validation images"], issues),
        "",
        "By the lesion's class, any issue; a gate that rejects keeps these from being answered. "
        "df and vasc have few images:",
        "",
        *table(["class", "validation images"], classes),
    ]


def _degradations(measured: dict[str, Any]) -> list[str]:
    header = ["degradation", "images", "named as", "so named", "any issue"]
    rows = [
        [
            name,
            str(found["num_images"]),
            " or ".join(f"`{issue}`" for issue in found["expected"]),
            _percent(found["found"]),
            _percent(found["any"]),
        ]
        for name, found in measured["degradations"].items()
    ]
    where = (
        "the masks that were published for HAM10000 (Tschandl et al., Nature Medicine 26, 2020)"
        if measured["masks"] == "published"
        else "`find_lesion`, which the checks use too"
    )
    return [
        "## Degraded copies that are found",
        "",
        "Of the 224 x 224 images (`training/degradations.py`). Where a lesion is that is removed "
        f"or cut off is known from {where}. Fewer images: the others have no large enough piece "
        "of bare skin.",
        "",
        *table(header, rows),
    ]


def _percent(share: float | None, digits: int = 0) -> str:
    return "none" if share is None else f"{100 * share:.{digits}f} %"


if __name__ == "__main__":
    main()
