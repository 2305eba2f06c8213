"""`docs/out-of-distribution.md` from its JSON: `python -m training.novelty_page`."""

import json
from pathlib import Path
from typing import Any, Final

from app.domain.notice import RESEARCH_USE_NOTICE
from training.markdown import table
from training.novelty_checks import RESIDUAL

SOURCE: Final = Path("docs/results/out-of-distribution.json")
OUTPUT: Final = Path("docs/out-of-distribution.md")


def main() -> None:
    """Rewrite the page."""
    measured = json.loads(SOURCE.read_text(encoding="utf-8"))
    OUTPUT.write_text(render(measured), encoding="utf-8")


def render(measured: dict[str, Any]) -> str:
    """The page as Markdown.

    Args:
        measured: What `training.novelty_checks.measure` gives.
    """
    models, kinds, methods = measured["models"], measured["kinds"], measured["methods"]
    lines = [
        "# Pictures of other things",
        "",
        f"{RESEARCH_USE_NOTICE} A classifier names one of its seven classes whatever it is shown. "
        "The service therefore refuses a picture whose features lie too far outside of what the "
        "training images span (ADR-0014). `python -m training novelty` measured here how many of "
        f"{measured['num_pictures']} pictures of other things are refused; they come inside the "
        "packages scikit-image and scikit-learn, or are drawn by `training/foreign.py`. They are "
        "not as many sources: photographs are cut into six pieces each, so that histology and the "
        "eye are one picture each, and faces are 25 x 25 pixels, enlarged.",
        "",
        "## What the shipped rules refuse",
        "",
        *table(
            ["", *models],
            [
                _row("validation images accepted", models, "accepted_validation"),
                _row("test images accepted", models, "accepted_test"),
                _row("**pictures of other things refused**", models, "refused"),
                *(
                    [
                        f"{kind} ({count})",
                        *(_percent(found["by_kind"][kind]) for found in models.values()),
                    ]
                    for kind, count in kinds.items()
                ),
            ],
        ),
        "",
        "The number of pictures is in brackets; what is not refused of a kind is falsely accepted.",
        "",
        "## Why this method",
        "",
        "Share of the same pictures that each method refuses where it accepts 95 % of the "
        f"validation images; neighbours, means and covariances are of every {measured['every']}. "
        "training image.",
        "",
        *table(
            ["", *methods],
            [
                [
                    f"**{name}** (shipped)" if name == RESIDUAL else name,
                    *(_percent(found[name]) for found in methods.values()),
                ]
                for name in next(iter(methods.values()))
            ],
        ),
        "",
        "## What this does not show",
        "",
        "- The method was chosen by this very table, so its rates flatter it; the share of "
        "explained variance (99 %) and the thresholds were set without these pictures.",
        "- There are no clinical close-ups among them, no skin diseases outside of the seven "
        "classes, no mucosa and no nails: no free collection of them was at hand. Pictures that "
        "resemble dermatoscopic images are the hardest to refuse, and it is not known how many "
        "are.",
        "- Of images like HAM10000's one in twenty is refused, by construction; of another "
        "camera's it may be many more.",
        "",
    ]
    return "\n".join(lines)


def _row(title: str, models: dict[str, Any], key: str) -> list[str]:
    return [title, *(_percent(found[key]) for found in models.values())]


def _percent(share: float) -> str:
    return f"{share:.1%}"


if __name__ == "__main__":
    main()
