"""`docs/heatmaps.md` from `docs/results/heatmaps.json`: `python -m training.heatmap_page`."""

import json
from pathlib import Path
from typing import Any, Final

from app.domain.notice import RESEARCH_USE_NOTICE
from training.markdown import table

SOURCE: Final = Path("docs/results/heatmaps.json")
OUTPUT: Final = Path("docs/heatmaps.md")

SAME: Final = 0.5
"""Rank correlation from which two maps count as the same."""

MOSTLY: Final = 0.5
"""Share of maps that became flat, and cannot be compared, above which the rest says nothing."""

_CURVES: Final = ("deletion", "insertion")
_BASELINES: Final = {"centre": "a map of the picture's middle", "random": "a random map"}
_SCOPES: Final = {"head": "its head's weights", "all": "all its weights"}


def main() -> None:
    """Rewrite the page."""
    measured = json.loads(SOURCE.read_text(encoding="utf-8"))
    OUTPUT.write_text(render(measured), encoding="utf-8")


def render(measured: dict[str, Any]) -> str:
    """The page as Markdown.

    Args:
        measured: What `training.heatmap_checks.measure` gives.
    """
    sections = [
        _introduction(measured),
        _failures(measured),
        _curves(measured),
        _shuffled(measured),
        _place(measured),
        _flags(measured),
    ]
    return "\n".join(line for section in sections for line in [*section, ""])


def failures(measured: dict[str, Any], method: str, found: dict[str, Any]) -> list[str]:
    """The checks that a method of a model fails, a sentence each.

    Args:
        measured: Of all models.
        method: Its name.
        found: What was measured of it.
    """
    return [
        *_blank(found),
        *_unfaithful(found),
        *_unchanged(method, found),
        *_misplaced(found["place"]["mean_in_lesion"], measured["lesion"]),
    ]


def _blank(found: dict[str, Any]) -> list[str]:
    share = found["place"]["flagged"]["blank"]
    if not share:
        return []
    return [f"{'Fewer than 1 %' if share < 0.01 else _percent(share)} of the maps are blank."]


def _unfaithful(found: dict[str, Any]) -> list[str]:
    failed = []
    for name, words in _BASELINES.items():
        for curve, (_, low, high) in (found[f"better_than_{name}"] or {}).items():
            if high < 0:
                failed.append(f"By {curve}, it is worse than {words}.")
            elif low <= 0:
                failed.append(f"By {curve}, it is not shown to be better than {words}.")
    return failed


def _unchanged(method: str, found: dict[str, Any]) -> list[str]:
    failed = []
    for scope, words in _SCOPES.items():
        value, constant = (found["shuffled"][scope][key] for key in ("correlation", "constant"))
        if value is not None and value > SAME and constant <= MOSTLY:
            # A map from before the head cannot know the answer.
            reason = ": attention lies before the head" if method == "attention" else ""
            end = reason if scope == "head" else ""
            failed.append(
                f"It hardly changes (rank correlation {value:.2f}) when {words} are shuffled{end}."
            )
    value = found["other_image"]["correlation"]
    if value is not None and value > SAME:
        failed.append(f"It is much the same for every image (rank correlation {value:.2f}).")
    return failed


def _misplaced(share: float | None, lesion: dict[str, float]) -> list[str]:
    if share is None or share > lesion["centre"]:
        return []
    if share <= lesion["area"]:
        return ["It lies no more on the lesion than a flat map does."]
    return ["It lies less on the lesion than a map of the picture's middle does."]


def _introduction(measured: dict[str, Any]) -> list[str]:
    return [
        "# How far heatmaps can be trusted",
        "",
        f"Written by `python -m training heatmaps --every {measured['every']}` from "
        f"`docs/results/heatmaps.json`. {RESEARCH_USE_NOTICE}",
        "",
        f"{measured['num_images']} images of the validation part, through the code that serves, in "
        f"OpenVINO; curves and shuffled models on {measured['num_curve_images']} of them. Grad-CAM "
        "is of the predicted class. The test part was not touched. Intervals are 95 % bootstrap "
        "intervals over images; with so few images, what is not shown may still be there. Models "
        "that are not named here were not measured.",
    ]


def _failures(measured: dict[str, Any]) -> list[str]:
    lines = ["## What fails"]
    for title, method, found in _methods(measured):
        failed = failures(measured, method, found)
        sentences = [f"- {sentence}" for sentence in failed] or ["- None of the checks below."]
        lines += ["", f"{title}, {method}:", "", *sentences]
    return lines


def _curves(measured: dict[str, Any]) -> list[str]:
    lines = [
        "## Does the answer depend on what the map marks?",
        "",
        "Deletion: what the map marks most is blurred first; insertion: a wholly blurred picture "
        "gets it back first (RISE, Petsiuk, Das and Saenko, BMVC 2018). The area is under the "
        "predicted class's probability over the share of pixels: small is good for deletion, large "
        "for insertion. The gains are on the same images: positive is better than the other map. "
        "Blank maps cannot rank anything and are left out.",
        "",
    ]
    header = ["model", "map", "images", "deletion", "insertion"]
    header += [f"{curve}, gain on {name}" for name in _BASELINES for curve in _CURVES]
    rows = []
    for title, model in measured["models"].items():
        for name, found in [*model["methods"].items(), *model["baselines"].items()]:
            gains = [
                _gain(found.get(f"better_than_{baseline}"), curve)
                for baseline in _BASELINES
                for curve in _CURVES
            ]
            cells = [_number(found[curve], 3) for curve in _CURVES]
            rows.append([title, name, str(found["num_images"]), *cells, *gains])
    lines += [*table(header, rows), ""]
    for title, model in measured["models"].items():
        probability = model["probability"]
        lines.append(
            f"- {title}: the mean probability of the predicted class is "
            f"{probability['clean']:.3f}, and {probability['blurred']:.3f} where all is blurred."
        )
    return lines


def _shuffled(measured: dict[str, Any]) -> list[str]:
    header = ["model", "map", "head shuffled", "all shuffled", "another image"]
    rows = []
    for title, method, found in _methods(measured):
        compared = [found["shuffled"]["head"], found["shuffled"]["all"], found["other_image"]]
        rows.append([title, method, *(_correlation(values) for values in compared)])
    return [
        "## Does the map depend on what the model learnt?",
        "",
        "Spearman's rank correlation of a map with that of the same model after its weights were "
        "shuffled, each variable within itself, for the same class (after Adebayo et al., Sanity "
        f"Checks for Saliency Maps, NeurIPS 2018); mean over the images and "
        f"{measured['num_shuffles']} shuffles. A map that does not change (more than {SAME}) shows "
        "the picture and the architecture, and not what was learnt. The last column compares the "
        "maps of two images: where it is high, the map says little of the image. Vectors (biases, "
        "normalisation) are not shuffled.",
        "",
        *table(header, rows),
        "",
        "In brackets: pairs that are left out because one of the two maps is constant, most of "
        "them blank. A map that shuffling makes blank did change.",
    ]


def _place(measured: dict[str, Any]) -> list[str]:
    header = [
        "model",
        "map",
        "mean share in the lesion",
        "5, 50, 95 %",
        "at the border, 5, 50, 95 %",
    ]
    rows = []
    for title, method, found in _methods(measured):
        place = found["place"]
        spread = [_spread(place[key]) for key in ("share_in_lesion", "share_at_border")]
        rows.append([title, method, _number(place["mean_in_lesion"], 3), *spread])
    lesion = measured["lesion"]
    return [
        "## Does the map lie on the lesion?",
        "",
        f"A lesion was found in {lesion['num_found']} of {measured['num_images']} images, by its "
        "darkness (`app/domain/lesion.py`; no ground truth). With the margin of 16 pixels that a "
        f"map's cell needs, it covers {_number(lesion['area'], 3)} of the picture on average, "
        "which is what a flat map has there; a map of the picture's middle has "
        f"{_number(lesion['centre'], 3)}. A flat map has 0.490 at the border. To lie on the lesion "
        "is no proof that a map is right, and networks do use the skin around it.",
        "",
        *table(header, rows),
    ]


def _flags(measured: dict[str, Any]) -> list[str]:
    bounds = measured["thresholds"]
    header = ["model", "map", "blank", "border-dominated", "off-lesion"]
    rows = [
        [title, method, *(_percent(share) for share in found["place"]["flagged"].values())]
        for title, method, found in _methods(measured)
    ]
    return [
        "## The flags of an answer",
        "",
        f"`border-dominated`: more than {bounds['most_at_border']:.2f} of the map is in its "
        f"outermost ring. `off-lesion`: less than {bounds['least_in_lesion']:.2f} of it is in the "
        "lesion with its margin. A flat map, which points nowhere, has 0.49 at the border. A map "
        "without a flag is not thereby right.",
        "",
        *table(header, rows),
    ]


def _methods(measured: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Title, method and what was found, of all."""
    return [
        (title, method, found)
        for title, model in measured["models"].items()
        for method, found in model["methods"].items()
    ]


def _gain(gains: dict[str, list[float]] | None, curve: str) -> str:
    if gains is None:
        return ""
    value, low, high = gains[curve]
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _correlation(found: dict[str, Any]) -> str:
    return f"{_number(found['correlation'], 2)} ({_percent(found['constant'])})"


def _spread(values: list[float] | None) -> str:
    return "none" if values is None else ", ".join(f"{value:.2f}" for value in values)


def _number(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


if __name__ == "__main__":
    main()
