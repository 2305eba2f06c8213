"""Every alert fires where it should, and none where all is well (promtool, no clock)."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.interop.fhir_conformance import OPERATION_PATH
from tests.conftest import REPOSITORY
from tests.programs import require_program

RULES = REPOSITORY / "deploy" / "prometheus" / "rules"
RUNBOOK = REPOSITORY / "docs" / "runbook.md"
ALERTS = (RULES / "alerts.yml").read_text(encoding="utf-8")
NAMES = re.findall(r"- alert: (\w+)", ALERTS)

REQUESTS = "dermhybrid_http_requests_total"
DURATION = "dermhybrid_http_request_duration_seconds"
PREDICT = 'job="dermhybrid", route="/predict"'
OPERATION = f'job="dermhybrid", route="{OPERATION_PATH}"'
MODEL = 'job="dermhybrid", instance="a", model="m", version="1"'
EIGHT_HOURS = 480
"""In minutes, one value each."""


def requests(good: int, failed: int, status: str = "503", route: str = PREDICT) -> dict[str, str]:
    return {
        f'{REQUESTS}{{{route}, status="200"}}': f"0+{good}x{EIGHT_HOURS}",
        f'{REQUESTS}{{{route}, status="{status}"}}': f"0+{failed}x{EIGHT_HOURS}",
    }


def durations(below: int, all_of_them: int, route: str = PREDICT) -> dict[str, str]:
    return {
        f'{DURATION}_bucket{{{route}, le="1.0"}}': f"0+{below}x{EIGHT_HOURS}",
        f"{DURATION}_count{{{route}}}": f"0+{all_of_them}x{EIGHT_HOURS}",
    }


def audit(below: int, all_of_them: int) -> dict[str, str]:
    bucket = 'dermhybrid_audit_duration_seconds_bucket{job="dermhybrid", instance="a", le="%s"}'
    numbers = {"0.2": below, "0.3": all_of_them, "+Inf": all_of_them}
    return {bucket % bound: f"0+{n}x{EIGHT_HOURS}" for bound, n in numbers.items()}


def decisions(novel: int, all_of_them: int) -> dict[str, str]:
    reason = f'{MODEL}, reason="out-of-distribution"'
    return {
        f"dermhybrid_decision_reasons_total{{{reason}}}": f"0+{novel}x{EIGHT_HOURS}",
        f'dermhybrid_decisions_total{{{MODEL}, action="refer"}}': f"0+{all_of_them}x{EIGHT_HOURS}",
    }


def problems(kind: str, a_minute: int) -> dict[str, str]:
    return {f'dermhybrid_problems_total{{{PREDICT}, problem="{kind}"}}': f"0+{a_minute}x480"}


def dicom(counter: str, values: str, **labels: str) -> dict[str, str]:
    more = "".join(f', {name}="{value}"' for name, value in labels.items())
    return {f'dermhybrid_dicom_{counter}{{job="dermhybrid", instance="a"{more}}}': values}


def undelivered(values: str) -> dict[str, str]:
    return dicom("failures_total", values, kind="dicom-delivery", outcome="postponed")


def jobs(state: str, values: str) -> dict[str, str]:
    return dicom("jobs", values, state=state)


def constant(metric: str, value: float) -> dict[str, str]:
    return {metric: f"{value}x{EIGHT_HOURS}"}


BATCH_IMAGES = (
    'dermhybrid_batch_images_total{job="dermhybrid", instance="a", route="/predict/batch"'
)
STUDIES = 'job="dermhybrid", instance="a", method="POST", route="/dicom/studies"'
TURNED_AWAY = {"DermHybridDicomTurnedAway"}
SELF_TEST = f"dermhybrid_self_test_passed{{{MODEL}}}"
TESTED_AT = f"dermhybrid_self_test_timestamp_seconds{{{MODEL}}}"
DRIFT = f"dermhybrid_class_drift_index{{{MODEL}}}"
WINDOW = f"dermhybrid_class_drift_answers{{{MODEL}}}"
QUEUE = f"dermhybrid_queue_images{{{MODEL}}}"
INSTANCE = '{job="dermhybrid", instance="a"}'
STARTED = f"process_start_time_seconds{INSTANCE}"
READY = f"dermhybrid_ready{INSTANCE}"
FAILURES = f"dermhybrid_audit_failures_total{INSTANCE}"
UNSTORED = 'dermhybrid_fhir_stored_total{job="dermhybrid", instance="a", outcome="failed"}'

WELL = {
    **requests(1000, 5),
    **durations(990, 1000),
    **audit(100, 100),
    **decisions(5, 100),
    **problems("service-busy", 5),
    **problems("internal-error", 0),
    **constant(f"up{INSTANCE}", 1),
    **constant(READY, 1),
    STARTED: "1000x100 1001x5 1002x380",  # exchanged twice in a morning
    **constant(SELF_TEST, 1),
    TESTED_AT: "0+60x480",
    **constant(DRIFT, 0.05),
    **constant(WINDOW, 500),
    QUEUE: "0 30 2 17 0x480",
    **constant(FAILURES, 2),  # of yesterday
    **jobs("dead", "0x480"),
    **jobs("waiting", "0 900x20 60x460"),  # a morning's photographs, soon answered
    **jobs("answered", "40x480"),
    **dicom("discarded_total", "3x480"),
    **undelivered("0x60 1x420"),
    **dicom("failures_total", "0+1x480", kind="dicom-not-photograph", outcome="refused"),
    **dicom("not_taken_total", "4x480", kind="dicom-queue"),
    **dicom("worker_failures_total", "0x60 1x420", kind="resources-exhausted"),
    **constant(UNSTORED, 2),
    f'{REQUESTS}{{{STUDIES}, status="202"}}': "0+1x480",
    f'{REQUESTS}{{{STUDIES}, status="401"}}': "2x480",
    **dicom("associations_ended_total", "3x480", reason="rejected"),
    **requests(1, 0, route=OPERATION),
    **durations(1, 1, route=OPERATION),
    f'{REQUESTS}{{{PREDICT}, status="401"}}': "0+1x480",
}
"""Five failures in a thousand, one in a hundred slow: within the objectives."""

CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    # alert: (what is otherwise, other alerts that the same thing sets off)
    "DermHybridErrorsFast": (requests(100, 30), {"DermHybridErrorsSlow"}),
    "DermHybridErrorsSlow": (requests(100, 8), set()),
    "DermHybridSlowFast": (durations(20, 100), {"DermHybridSlowSlow"}),
    "DermHybridSlowSlow": (durations(60, 100), set()),
    "DermHybridDown": (constant(f"up{INSTANCE}", 0), set()),
    "DermHybridRestarting": ({STARTED: "1000x400 1001x7 1002x7 1003x80"}, set()),
    "DermHybridNotReady": (
        {READY: "1x380 0x100", SELF_TEST: "1x380 0x100"},
        {"DermHybridSelfTestFailed"},
    ),
    "DermHybridSelfTestFailed": (constant(SELF_TEST, 0), set()),  # the shadow's
    "DermHybridSelfTestStale": (constant(TESTED_AT, 0), set()),
    "DermHybridInternalErrors": (problems("internal-error", 1), set()),
    "DermHybridAuditFailing": ({FAILURES: "0+1x480"}, set()),
    "DermHybridAuditSlow": (audit(10, 100), set()),
    "DermHybridQueueLong": (constant(QUEUE, 17), set()),
    "DermHybridShedding": (problems("service-busy", 100), set()),
    "DermHybridClassDrift": (constant(DRIFT, 0.3), set()),
    "DermHybridNovelPictures": (decisions(30, 100), set()),
    "DermHybridDicomQueueFailing": (
        dicom("not_taken_total", "0x418 1x62", kind="dicom-queue"),
        set(),
    ),
    "DermHybridDicomTurnedAway": ({f'{REQUESTS}{{{STUDIES}, status="401"}}': "0x410 1x70"}, set()),
    "DermHybridDicomFailing": (undelivered("0x380 1+1x100"), set()),
    "DermHybridDicomBacklog": (jobs("answered", "1000x480"), set()),
    "DermHybridDicomDead": (jobs("dead", "1x480"), set()),
    "DermHybridDicomDiscarded": (dicom("discarded_total", "0x400 1x80"), set()),
    "DermHybridFhirStoreFailing": ({UNSTORED: "0+1x480"}, set()),
    "DermHybridIdentityProviderDown": (problems("identity-provider-unavailable", 1), set()),
    "DermHybridRefusedCallers": ({f'{REQUESTS}{{{PREDICT}, status="401"}}': "0+20x480"}, set()),
}


def firing_test(series: dict[str, str], expected: set[str]) -> dict[str, Any]:
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": "7h", "exp_samples": samples}],
    }


def history_test(series: dict[str, str], expected: set[str]) -> dict[str, Any]:
    """As `firing_test`, of whatever fired at any time."""
    test = firing_test(series, expected)
    ever = 'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[8h]))'
    test["promql_expr_test"][0].update(expr=ever, eval_time="8h")
    return test


def run_promtool(tests: list[dict[str, Any]], folder: Path, every: str = "1m") -> str:
    promtool = require_program("promtool")
    files = [str(path) for path in sorted(RULES.glob("*.yml"))]
    content = {"rule_files": files, "evaluation_interval": every, "tests": tests}
    path = folder / "test.yml"
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    done = subprocess.run(
        [promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_all_alerts_have_a_case() -> None:
    assert set(CASES) == set(NAMES)
    assert len(NAMES) == len(set(NAMES)) >= 19


def test_all_is_quiet_where_all_is_well(tmp_path: Path) -> None:
    assert run_promtool([firing_test(WELL, set())], tmp_path) == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_alert_fires_and_nothing_else_does(tmp_path: Path, name: str) -> None:
    changes, others = CASES[name]
    assert run_promtool([firing_test({**WELL, **changes}, {name, *others})], tmp_path) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            requests(100, 900, route=OPERATION),
            {"DermHybridErrorsFast", "DermHybridErrorsSlow"},
        ),
        (durations(100, 9000, route=OPERATION), {"DermHybridSlowFast", "DermHybridSlowSlow"}),
    ],
)
def test_a_prediction_in_fhir_is_a_prediction(
    tmp_path: Path, changes: dict[str, str], expected: set[str]
) -> None:
    assert run_promtool([firing_test({**WELL, **changes}, expected)], tmp_path) == ""


def test_a_service_that_was_never_seen_is_down(tmp_path: Path) -> None:
    assert run_promtool([firing_test({}, {"DermHybridDown"})], tmp_path) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # The disk of the queue is full: a job's start cannot be written, once a second.
        (
            dicom("worker_failures_total", "0x380 0+60x100", kind="dicom-queue"),
            {"DermHybridDicomQueueFailing"},
        ),
        (
            dicom("not_taken_total", "0x380 1+1x100", kind="service-busy"),
            {"DermHybridDicomQueueFailing"},
        ),
        (dicom("associations_ended_total", "0x400 1x80", reason="rejected"), TURNED_AWAY),
        ({f'{REQUESTS}{{{STUDIES}, status="408"}}': "0x400 1x80"}, TURNED_AWAY),
        # Too many at once at the door, before the queue is asked; or it took too long.
        ({f'{REQUESTS}{{{STUDIES}, status="503"}}': "0x400 1x80"}, TURNED_AWAY),
        ({f'{REQUESTS}{{{STUDIES}, status="504"}}': "0x400 1x80"}, TURNED_AWAY),
        # What is no photograph is nobody's who was turned away.
        ({f'{REQUESTS}{{{STUDIES}, status="422"}}': "0+1x480"}, set()),
        # Each image of a batch is a prediction, though their requests have 200.
        (
            {
                f'{BATCH_IMAGES}, status="200"}}': "0+700x480",
                f'{BATCH_IMAGES}, status="503"}}': "0+300x480",
            },
            {"DermHybridErrorsFast", "DermHybridErrorsSlow"},
        ),
        ({f'{BATCH_IMAGES}, status="422"}}': "0+9000x480"}, set()),
        # The archive is away: each of a thousand jobs is tried again every five minutes.
        (
            {**jobs("answered", "0x380 1000x100"), **undelivered("0x380 0+200x100")},
            {"DermHybridDicomFailing", "DermHybridDicomBacklog"},
        ),
        # And one job: its attempts are five minutes apart.
        (
            undelivered("0x380" + "".join(f" {n}x4" for n in range(1, 20))),
            {"DermHybridDicomFailing"},
        ),
        (undelivered("0x380 1x100"), set()),
        # A queue that is full is not the house that is.
        (
            {
                'dermhybrid_problems_total{job="dermhybrid", route="/dicom/studies", '
                'problem="service-busy"}': "0+500x480"
            },
            set(),
        ),
        # Nor are jobs that are tried again while the queue is full predictions that were refused.
        (
            {
                'dermhybrid_problems_total{job="dermhybrid", route="/dicom/jobs/{job_id}/retry", '
                'problem="service-busy"}': "0+500x480"
            },
            set(),
        ),
    ],
)
def test_dicom_jobs_that_do_not_end_are_told(
    tmp_path: Path, changes: dict[str, str], expected: set[str]
) -> None:
    assert run_promtool([history_test({**WELL, **changes}, expected)], tmp_path) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {f'dermhybrid_problems_total{{{PREDICT}, problem="internal-error"}}': "0x380 1x100"},
        dicom("failures_total", "0x380 1x100", kind="internal-error", outcome="postponed"),
    ],
)
def test_one_internal_error_is_told(tmp_path: Path, changes: dict[str, str]) -> None:
    test = history_test({**WELL, **changes}, {"DermHybridInternalErrors"})
    assert run_promtool([test], tmp_path) == ""


def test_a_service_that_stops_and_comes_back_is_no_alert(tmp_path: Path) -> None:
    restart = {READY: "1x380 0 stale 1x100", f"up{INSTANCE}": "1x381 0 1x100"}
    assert run_promtool([history_test({**WELL, **restart}, set())], tmp_path) == ""


def test_a_service_that_stops_for_good_is_down_and_not_unready(tmp_path: Path) -> None:
    stopped = {READY: "1x380 0 stale", f"up{INSTANCE}": "1x381 0x100"}
    test = history_test({**WELL, **stopped}, {"DermHybridDown"})
    assert run_promtool([test], tmp_path) == ""


def test_nothing_ever_fires_where_all_is_well(tmp_path: Path) -> None:
    assert run_promtool([history_test(WELL, set())], tmp_path) == ""


@pytest.mark.parametrize(
    ("bad", "alerts"),
    [
        ("0x400 1x80", {"Slow"}),  # a ticket
        ("0x400 1x2 2x80", {"Slow"}),
        ("0x400 1x2 2x2 3x80", {"Slow", "Fast"}),
    ],
    ids=["one", "two", "three"],
)
@pytest.mark.parametrize("kind", ["Errors", "Slow"])
def test_one_or_two_bad_predictions_where_few_ask_wake_nobody(
    tmp_path: Path, bad: str, alerts: set[str], kind: str
) -> None:
    few = f'{PREDICT}, instance="few"'
    if kind == "Errors":
        series = {f'{REQUESTS}{{{few}, status="200"}}': "0x480"}
        series |= {f'{REQUESTS}{{{few}, status="503"}}': bad}
    else:
        series = {f'{DURATION}_bucket{{{few}, le="1.0"}}': "0x480"}
        series |= {f"{DURATION}_count{{{few}}}": bad}
    calm = {name: values for name, values in WELL.items() if "route=" not in name}
    expected = {f"DermHybrid{kind}{speed}" for speed in alerts}
    # Scrapes and evaluations fall together, and beside each other as they do in practice.
    for every in ("1m", "59s"):
        assert run_promtool([history_test({**calm, **series}, expected)], tmp_path, every) == ""


def test_refused_callers_do_not_hide_that_all_others_get_nothing(tmp_path: Path) -> None:
    unavailable = {
        **{name: values for name, values in WELL.items() if "route=" not in name},
        f'{REQUESTS}{{{PREDICT}, status="401"}}': "0+9x480",
        f'{REQUESTS}{{{PREDICT}, status="503"}}': "0+0.1x480",
        f'dermhybrid_problems_total{{{PREDICT}, problem="service-busy"}}': "0+0.1x480",
    }
    expected = {"DermHybridErrorsFast", "DermHybridErrorsSlow", "DermHybridShedding"}
    assert run_promtool([firing_test(unavailable, expected)], tmp_path) == ""


def test_a_service_that_ends_again_and_again_is_told_of(tmp_path: Path) -> None:
    loop = {f"up{INSTANCE}": "1x380 " + "1 1 0 " * 33, STARTED: "1000x380 "}
    loop[STARTED] += " ".join(f"{1000 + i} {1000 + i} stale" for i in range(33))
    assert run_promtool([firing_test({**WELL, **loop}, {"DermHybridRestarting"})], tmp_path) == ""


def test_drift_needs_enough_answers(tmp_path: Path) -> None:
    few = {**WELL, **constant(DRIFT, 0.9), **constant(WINDOW, 199)}
    assert run_promtool([firing_test(few, set())], tmp_path) == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_runbook_says_what_to_do(name: str) -> None:
    block = ALERTS.split(f"- alert: {name}\n")[1].split("- alert:")[0]
    assert f"runbook_url: docs/runbook.md#{name.lower()}\n" in block + "\n"
    assert re.search(r"severity: (page|ticket)\n", block)
    section = re.split(rf"^## {name}$", RUNBOOK.read_text(encoding="utf-8"), flags=re.M)
    assert len(section) == 2, f"docs/runbook.md has no section {name}"
    text = section[1].split("\n## ")[0]
    assert {"**Means**", "**Look**", "**Do**"} <= set(re.findall(r"\*\*\w+\*\*", text))
