"""Every reason of a decision is found for its own cause, and for nothing else."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from app.domain.decision import (
    Action,
    Evidence,
    Gates,
    Reason,
    decide,
    disagreement,
    predicted_set,
)
from app.domain.labels import CLASS_INDEX, LABELS
from app.domain.rules import DecisionRules
from tests.tiny_rules import tiny_point, tiny_rules

RULES = tiny_rules(max_disagreement=0.4)
POINTS = (tiny_point(), tiny_point("melanoma", ["mel"], 0.01))


def probabilities(**shares: float) -> npt.NDArray[np.float32]:
    values = np.zeros(7, np.float32)
    for label, share in shares.items():
        values[CLASS_INDEX[label]] = share
    assert values.sum() == pytest.approx(1.0)
    return values


CALM = Evidence(probabilities(nv=0.9, bkl=0.1), novelty=0.5, disagreement=0.1)


def test_nothing_to_say_against_an_answer() -> None:
    decision = decide(CALM, RULES, POINTS, Gates())
    assert (decision.action, decision.reasons) == (Action.REPORT, ())
    assert decision.sentence.startswith("No reason was found")
    assert [(s.coverage, s.labels) for s in decision.prediction_sets] == [
        (0.9, ("nv",)),
        (0.95, ("nv", "bkl")),
    ]
    assert decision.novelty == (0.5, 1.0)


def test_a_set_of_higher_coverage_has_all_of_the_lower_one() -> None:
    low, high = RULES.prediction_sets
    high = high.model_copy(update={"thresholds": {**high.thresholds, "df": 0.9}})
    rules = RULES.model_copy(update={"prediction_sets": [low, high]})
    evidence = Evidence(probabilities(nv=0.55, df=0.25, bkl=0.2), 0.5, 0.1)
    first, second = decide(evidence, rules, POINTS, Gates()).prediction_sets
    assert (first.labels, first.pooled) == (("nv", "df", "bkl"), ())
    assert (second.labels, second.pooled) == (("nv", "df", "bkl"), ("df",))


def test_rules_of_falling_coverage_are_no_rules() -> None:
    content = RULES.model_dump()
    content["prediction_sets"].reverse()
    with pytest.raises(ValidationError, match="rising coverage"):
        DecisionRules.model_validate(content)


CAUSES = {
    Reason.LOW_CONFIDENCE: Evidence(probabilities(nv=0.49, bkl=0.41, df=0.1), 0.5, 0.1),
    Reason.LARGE_SET: Evidence(probabilities(nv=0.55, bkl=0.22, df=0.23), 0.5, 0.1),
    Reason.MALIGNANCY: Evidence(probabilities(nv=0.69, akiec=0.11, bcc=0.1, mel=0.1), 0.5, 0.1),
    Reason.DISAGREEMENT: Evidence(CALM.probabilities, 0.5, 0.41),
    Reason.OUT_OF_DISTRIBUTION: Evidence(CALM.probabilities, 1.01, 0.1),
    Reason.POOR_QUALITY: Evidence(CALM.probabilities, 0.5, 0.1, poor_quality=True),
}


@pytest.mark.parametrize("reason", CAUSES)
def test_each_reason_has_its_own_cause(reason: Reason) -> None:
    decision = decide(CAUSES[reason], RULES, POINTS, Gates(reject_novelty=False))
    assert decision.reasons == (reason,)
    assert decision.action is Action.REFER
    assert decision.sentence.startswith("A specialist has to look at this picture. ")
    assert len(decision.sentence.split(". ")) == 2


def test_without_rules_nothing_is_reported() -> None:
    decision = decide(CALM, None, (), Gates())
    assert (decision.action, decision.reasons) == (Action.REFER, (Reason.NO_RULES,))
    assert decision.prediction_sets == ()
    assert decision.operating_points == ()
    assert decision.novelty is None


def test_every_reason_is_tested() -> None:
    assert {*CAUSES, Reason.NO_RULES} == set(Reason)


@pytest.mark.parametrize(
    ("reason", "gates", "action"),
    [
        (Reason.OUT_OF_DISTRIBUTION, Gates(), Action.REJECT),
        (Reason.OUT_OF_DISTRIBUTION, Gates(reject_novelty=False), Action.REFER),
        (Reason.POOR_QUALITY, Gates(), Action.REFER),
        (Reason.POOR_QUALITY, Gates(reject_quality=True), Action.REJECT),
        (Reason.LOW_CONFIDENCE, Gates(reject_quality=True), Action.REFER),
    ],
)
def test_gates_reject_their_own_findings_alone(
    reason: Reason, gates: Gates, action: Action
) -> None:
    assert decide(CAUSES[reason], RULES, POINTS, gates).action is action


def test_reasons_come_gravest_first() -> None:
    evidence = Evidence(probabilities(mel=0.4, nv=0.3, bkl=0.3), 2.0, 0.9, poor_quality=True)
    decision = decide(evidence, RULES, POINTS, Gates(reject_novelty=False))
    assert decision.action is Action.REFER
    assert decision.reasons == tuple(reason for reason in Reason if reason != Reason.NO_RULES)


def test_a_rejection_tells_nothing_of_the_answer_that_is_not_given() -> None:
    evidence = Evidence(probabilities(mel=0.4, nv=0.3, bkl=0.3), 2.0, 0.9, poor_quality=True)
    decision = decide(evidence, RULES, POINTS, Gates())
    assert decision.action is Action.REJECT
    assert decision.reasons == (Reason.OUT_OF_DISTRIBUTION, Reason.POOR_QUALITY)
    assert "malignant" not in decision.sentence


def test_a_score_that_is_no_number_is_out_of_distribution() -> None:
    evidence = Evidence(CALM.probabilities, float("nan"), 0.1)
    assert Reason.OUT_OF_DISTRIBUTION in decide(evidence, RULES, POINTS, Gates()).reasons


def test_a_score_that_rules_need_and_nobody_has_is_none_to_trust() -> None:
    decision = decide(replace(CALM, novelty=None), RULES, POINTS, Gates())
    assert (decision.action, decision.reasons) == (Action.REJECT, (Reason.OUT_OF_DISTRIBUTION,))
    assert decision.novelty is None
    decision = decide(replace(CALM, disagreement=None), RULES, POINTS, Gates())
    assert (decision.action, decision.reasons) == (Action.REFER, (Reason.DISAGREEMENT,))


def test_a_model_alone_disagrees_with_nobody() -> None:
    rules = tiny_rules(max_disagreement=None)
    decision = decide(replace(CALM, disagreement=None), rules, POINTS, Gates())
    assert decision.action is Action.REPORT


@pytest.mark.parametrize(("share", "positive"), [(0.25, False), (0.375, True)])
def test_operating_points_sum_their_classes(share: float, *, positive: bool) -> None:
    evidence = Evidence(probabilities(nv=1 - share, mel=share - 0.125, bcc=0.125), 0.5)
    malignancy, melanoma = decide(evidence, RULES, POINTS, Gates()).operating_points
    assert (malignancy.probability, malignancy.positive) == (share, positive)
    assert (melanoma.probability, melanoma.positive) == (share - 0.125, True)


def test_only_the_named_operating_point_refers() -> None:
    points = (tiny_point(threshold=0.5), tiny_point("melanoma", ["mel"], 0.0))
    strict = points[0].model_copy(update={"required_sensitivity": 0.95, "threshold": 0.0})
    assert decide(CALM, RULES, (*points, strict), Gates()).action is Action.REPORT


def test_limits_themselves_are_within() -> None:
    evidence = Evidence(probabilities(nv=0.5, bkl=0.5), 1.0, 0.4)
    assert decide(evidence, RULES, (), Gates()).action is Action.REPORT


def test_a_set_holds_the_most_probable_class_whatever_its_threshold() -> None:
    thresholds = dict.fromkeys(LABELS, 0.99) | {"df": 0.1}
    found = predicted_set(thresholds, probabilities(nv=0.5, mel=0.35, df=0.15))
    assert found == ("nv", "df")


def test_disagreement_is_the_divergence_in_bits() -> None:
    one, other = probabilities(nv=1.0)[None], probabilities(mel=1.0)[None]
    assert disagreement([one, one])[0] == pytest.approx(0.0)
    assert disagreement([one, other])[0] == pytest.approx(1.0)
    half = probabilities(nv=0.5, mel=0.5)[None]
    # The entropy of (3/4, 1/4) less the mean of those of 1 and of (1/2, 1/2).
    assert disagreement([one, half])[0] == pytest.approx(0.8112781 - 0.5, abs=1e-6)
