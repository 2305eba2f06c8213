"""The faults' Markdown page, from the JSON alone."""

from pathlib import Path
from typing import Any

from tests.faults.sections import in_order


def write_page(results: dict[str, Any], page: Path) -> None:
    """Write `docs/faults.md`, in the order of the faults."""
    results = in_order(results)
    lines = [
        "# Faults",
        "",
        "Made by `make faults`, which writes `docs/results/faults.json` and this page: the service "
        "as a process of its own, on OpenVINO with one model, under each fault in turn. Times and "
        "memory are those of the version that is named; the client is on the same machine, and "
        "shares its processor. `no answer` is a connection that ended without one, `caller left` "
        "one that the caller gave up.",
        "",
        *_origins(results),
        "",
        "| fault | requests | no answer | first right answer, s | ready, s | memory, MB |",
        "|---|---|---|---|---|---|",
        *(_row(name, found["report"]) for name, found in results.items()),
        "",
        "*First right answer* and *ready* count from the end of the fault. *No answer* leaves out "
        "what a section says is refused or cut off by design. In every "
        "section each request ended once, in a way that the README documents; each answer has "
        "exactly one audit record, each record a request, and `dermhybrid audit verify` finds "
        "nothing, unless it says otherwise.",
        "",
    ]
    for name, found in results.items():
        lines += [*_section(name, found["report"]), ""]
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _origins(results: dict[str, Any]) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, found in results.items():
        origin = found["model"], found["hardware"], found["git_commit"]
        groups.setdefault(origin, []).append(name)
    return [
        f"- {', '.join(names)}: {model}, {hardware}, commit `{commit}`."
        for (model, hardware, commit), names in groups.items()
    ]


def _row(name: str, report: dict[str, Any]) -> str:
    if report["skipped"]:
        return f"| {name} | not tried | | | | |"
    number = sum(
        count
        for counts in (report["seen"], report["later"])
        for kind, count in counts.items()
        if not kind.endswith("(in a batch)")
    )
    before, after = report["resident_mb"]
    cells = (
        name,
        f"{number:,}",
        report["lost"],
        report["recovery_seconds"],
        report["ready_seconds"],
        f"{before} to {after}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _section(name: str, report: dict[str, Any]) -> list[str]:
    title = f"## {name[0].upper()}{name[1:]}"
    if report["skipped"]:
        return [title, "", f"Not tried: {report['skipped']}."]
    lines = [
        title,
        "",
        f"{report['done'][0].upper()}{report['done'][1:]}.",
        "",
        f"- Meanwhile: {_counts(report['seen'])}.",
    ]
    if report["later"]:
        lines.append(f"- Afterwards: {_counts(report['later'])}.")
    lines += [
        f"- {key[0].upper()}{key[1:]}: {_value(value)}." for key, value in report["notes"].items()
    ]
    lines += [f"- **Wrong: {sentence}.**" for sentence in report["wrong"]]
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} x {kind}" for kind, number in counts.items()) or "nothing"


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
