"""Fill a model's card from its manifest, and the words that every card shares."""

from collections.abc import Sequence
from typing import Any, Final

from app.domain.card_schema import (
    AISystemFacts,
    AppliedModelCard,
    BasicInfo,
    KeyMetric,
    KeyMetrics,
    MetricResult,
    ModelSummary,
    ReleaseInfo,
    Resources,
    TransparencyInformation,
    TrustIngredients,
    UsesAndDirections,
    Warnings,
)
from app.domain.ensemble import EnsembleManifest
from app.domain.labels import CLASSES
from app.domain.manifest import Manifest
from app.domain.measurements import Interval, Metrics
from app.domain.rules import DecisionRules

INTENDED_USE: Final = (
    "Research on dermatoscopic images of pigmented lesions like those of HAM10000, and trials of "
    "the service around it."
)
OUT_OF_SCOPE: Final = (
    "Any clinical decision, photographs without a dermatoscope, mucosa and nails, diagnoses "
    "outside the seven classes (the network always names one of them), and populations other than "
    "those below."
)
DATA_TERMS: Final = (
    "HAM10000 (P. Tschandl, C. Rosendahl, H. Kittler, Scientific Data 5:180161, 2018, "
    "doi:10.1038/sdata.2018.161), ViDIR Group, Department of Dermatology, Medical University "
    "of Vienna, CC BY-NC 4.0: the weights are for non-commercial use."
)
POPULATION: Final = (
    "The patients come from Austria and Australia and are mostly light-skinned; more than half of "
    "the diagnoses were confirmed by histopathology."
)
SKIN_TONE_LIMIT: Final = (
    "HAM10000 has no labels of skin tone: nothing was measured by it, and nothing is known of "
    "darker skin."
)
METHOD: Final = (
    "Baliyan, Tomar and Dixit, A Hybrid Deep Learning Model to Improve Skin Cancer Classification."
)
PREVALENCE_LIMIT: Final = (
    "Probabilities, shares and predictive values are of a collection in which about one image in "
    "five is malignant. Where malignant lesions are rarer or more frequent, they do not hold."
)
HEATMAP_LIMIT: Final = (
    "A heatmap is a 7 x 7 grid. It says neither why nor where a lesion ends, and may mark what the "
    "answer does not depend on: `docs/heatmaps.md` has what was measured, and attention did not "
    "come out better than a map of the picture's middle."
)
PATIENT_LIMIT: Final = (
    "HAM10000 names lesions but no patients: two lesions of one patient may be in two parts."
)
PAST_READINGS: Final = (
    "The test part took no part in training, calibration or thresholds. Earlier recipes were "
    "measured on it as well and told what to try next, and the service's default model is the one "
    "of the highest balanced accuracy on it: its figures flatter somewhat."
)
_NOTHING_KNOWN: Final = "None."


def applied_model_card(
    manifest: Manifest | EnsembleManifest, digest: str, members: Sequence[Manifest]
) -> AppliedModelCard:
    """The card of what answers.

    Args:
        manifest: Of the model, or of the ensemble.
        digest: SHA-256 of that manifest.
        members: The models that answer: the model itself, or the ensemble's.
    """
    return AppliedModelCard(
        basic_info=BasicInfo(
            model_name=manifest.name,
            model_developer="The DermHybrid project",
            developer_contact="The project's issue tracker",
        ),
        release_info=ReleaseInfo(
            release_stage="research",
            release_version=str(manifest.version),
            model_digest=digest,
            global_availability=f"For research, under {members[0].license}",
            regulatory_approval="None. Not a medical device in any country.",
        ),
        model_summary=ModelSummary(
            summary=f"{manifest.title}: probabilities of seven diagnostic classes for a "
            "dermatoscopic image, with a decision to report, refer or reject.",
            keywords=["dermatoscopy", "skin lesion", "image classification", "HAM10000"],
        ),
        uses_and_directions=UsesAndDirections(
            intended_use_and_workflow=INTENDED_USE,
            primary_intended_users="Researchers, and engineers who try the service.",
            how_to_use="Read `decision` first. A rejected picture has no answer; a referred one "
            "needs a specialist, whatever the probabilities say.",
            targeted_patient_population=f"None in care. {POPULATION}",
            cautioned_out_of_scope_settings=OUT_OF_SCOPE,
        ),
        warnings=_warnings(manifest),
        trust_ingredients=TrustIngredients(
            ai_system_facts=_facts(manifest, members),
            transparency_information=TransparencyInformation(
                funding_source=_NOTHING_KNOWN,
                third_party_information=DATA_TERMS,
                stakeholders_consulted=_NOTHING_KNOWN,
            ),
        ),
        key_metrics=_key_metrics(manifest, members[0]),
        resources=Resources(
            peer_reviewed_publications=[METHOD, DATA_TERMS],
            patient_consent_or_disclosure="The images were published without identity by the "
            "dataset's authors; see its terms.",
        ),
    )


def _warnings(manifest: Manifest | EnsembleManifest) -> Warnings:
    return Warnings(
        known_risks_and_limitations=limits(manifest),
        known_biases_or_ethical_considerations=[SKIN_TONE_LIMIT, POPULATION],
        clinical_risk_level="Not assessed: it must not be used in care. "
        "A missed melanoma can kill.",
    )


def limits(manifest: Manifest | EnsembleManifest) -> list[str]:
    """What a reader must know before relying on an answer."""
    return [
        _calibration_limit(manifest),
        PREVALENCE_LIMIT,
        *_gate_limits(manifest.decision),
        PAST_READINGS,
        PATIENT_LIMIT,
        "Recall differs much between classes; rare classes were learnt from few lesions.",
        HEATMAP_LIMIT,
        *_member_limit(manifest),
    ]


def _member_limit(manifest: Manifest | EnsembleManifest) -> list[str]:
    if not isinstance(manifest, EnsembleManifest):
        return []
    return [
        "The heaviest member's heatmap is shown; the others' answers may depend on other places."
    ]


def _calibration_limit(manifest: Manifest | EnsembleManifest) -> str:
    calibration = manifest.calibration
    if calibration is None:
        return (
            "The probabilities are the softmax's own and are not calibrated: 0.9 does not mean "
            "that nine in ten such answers are right."
        )
    return (
        f"The probabilities were calibrated by one temperature ({calibration.temperature}) on "
        f"{calibration.num_images} validation images (expected calibration error "
        f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after); on images "
        "from elsewhere they may mean less."
    )


def _gate_limits(rules: DecisionRules | None) -> list[str]:
    if rules is None:
        return ["Nothing in the model notices an image that is not a dermatoscopic one."]
    return [
        "Of images like HAM10000's one in twenty is rejected as out of distribution, of another "
        "camera's it may be many more, and not every picture of something else is "
        "(`docs/out-of-distribution.md`).",
        "Prediction sets and thresholds hold for images like those of HAM10000 and may fail "
        "elsewhere without a sign.",
        *_all_clear_limit(rules),
    ]


def _all_clear_limit(rules: DecisionRules) -> list[str]:
    outcome = rules.outcome
    limit = (
        f"A reported answer is no all-clear: {outcome.num_malignant_reported_benign} of "
        f"{outcome.num_malignant} malignant test images were reported as benign"
    )
    if outcome.reported_benign_by_class is not None:
        counts = ", ".join(f"{n} {label}" for label, n in outcome.reported_benign_by_class.items())
        limit += f" ({counts})"
    if outcome.malignant_of_reported is not None:
        found = outcome.malignant_of_reported
        share = f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"
        limit += f", {share} of all that were"
    return [f"{limit}."]


def _facts(manifest: Manifest | EnsembleManifest, members: Sequence[Manifest]) -> AISystemFacts:
    networks = "; ".join(
        f"{m.title}, {m.num_parameters:,} parameters, {m.training.epochs} epochs, "
        f"{m.training.seconds / 3600:.1f} h on {m.training.hardware}"
        for m in members
    )
    training = members[0].training
    classes = ", ".join(f"{c.label} ({c.name}, {c.malignancy})" for c in CLASSES)
    return AISystemFacts(
        outcomes_and_outputs=f"A probability for each of: {classes}.",
        model_type=f"Convolutional neural network: {networks}.",
        input_data_source="One dermatoscopic image, resized to 224 x 224, 8-bit RGB.",
        output_and_input_data_types="Image in; JSON with probabilities, decision, prediction sets, "
        "operating points, heatmap out.",
        development_data_characterization=f"{DATA_TERMS} Split `{training.protocol}`: 64 % "
        f"training, 16 % validation, 20 % test, seed {training.split_seed}, fingerprints of the "
        f"data {training.data_fingerprint}, of the split {training.split_fingerprint}. "
        f"{POPULATION}",
        bias_mitigation_approaches="Weights of classes against their imbalance; figures by age, "
        f"sex and site below. {SKIN_TONE_LIMIT}",
        ongoing_maintenance="A published version never changes. `dermhybrid audit report` compares "
        "answers in use with the figures below.",
        security=f"Every file is listed with its SHA-256; the service loads nothing else. Made by "
        f"commit {manifest.git_commit}.",
    )


def _key_metrics(manifest: Manifest | EnsembleManifest, first: Manifest) -> KeyMetrics:
    metrics = manifest.metrics
    split = first.training.protocol

    def metric(goal: str, results: list[MetricResult], interpretation: str) -> KeyMetric:
        return KeyMetric(
            metric_goal=goal,
            results=results,
            interpretation=interpretation,
            test_type="Internal, retrospective; no external test.",
            testing_data_description=f"{metrics.num_images} images of the {metrics.part} part of "
            f"HAM10000, protocol `{split}`.",
            validation_process_and_justification="Everything was chosen on the validation part; "
            "the test part was measured once per recipe. Intervals: 95 %, bootstrap over lesions.",
        )

    return KeyMetrics(
        usefulness_usability_efficacy=metric(
            "Right answers, over all images and in each class.",
            _efficacy(metrics),
            "Recall and precision differ much between classes.",
        ),
        fairness_equity=metric(
            "The same accuracy and melanoma recall whatever the age, sex and site.",
            _by_subgroup(metrics),
            f"Small groups have wide intervals. {SKIN_TONE_LIMIT}",
        ),
        safety_reliability=metric(
            "Melanomas found, probabilities that mean what they say, no answer where there should "
            "be none.",
            _safety(metrics, manifest.decision),
            "Measured without the gate of picture quality.",
        ),
    )


def _efficacy(metrics: Metrics) -> list[MetricResult]:
    overall: dict[str, Any] = {
        "accuracy": metrics.accuracy,
        "balanced accuracy": metrics.balanced_accuracy,
        "macro F1": metrics.macro_f1,
    }
    for label, figures in metrics.per_class.items():
        overall |= {
            f"{label} precision": figures.precision,
            f"{label} recall": figures.recall,
            f"{label} F1": figures.f1,
            f"{label} ROC AUC": figures.roc_auc,
        }
    return _results(overall)


def _by_subgroup(metrics: Metrics) -> list[MetricResult]:
    values: dict[str, Any] = {}
    for group in metrics.subgroups:
        name = f"{group.attribute} {group.value}"
        values[f"{name} accuracy ({group.num_images} images)"] = group.accuracy
        if group.melanoma_recall is not None:
            values[f"{name} melanoma recall ({group.num_melanomas})"] = group.melanoma_recall
    return _results(values)


def _safety(metrics: Metrics, rules: DecisionRules | None) -> list[MetricResult]:
    values: dict[str, Any] = {}
    if metrics.calibration_error is not None:
        values["expected calibration error"] = metrics.calibration_error
    for point in metrics.operating_points:
        name = f"{point.target} at {point.threshold:g}"
        values[f"{name} sensitivity"] = point.sensitivity
        values[f"{name} specificity"] = point.specificity
    if rules is not None:
        outcome = rules.outcome
        values |= {
            "share reported": outcome.reported,
            "share referred": outcome.referred,
            "share rejected": outcome.rejected,
            "accuracy of what is reported": outcome.accuracy,
            "malignant test images": outcome.num_malignant,
            "malignant test images reported as benign": outcome.num_malignant_reported_benign,
        }
        values |= {
            f"{label} test images reported as benign": number
            for label, number in (outcome.reported_benign_by_class or {}).items()
        }
        if outcome.malignant_of_reported is not None:
            values["malignant share of what is reported as benign"] = outcome.malignant_of_reported
        for rule in rules.prediction_sets:
            name = f"coverage of {rule.coverage:.0%} prediction sets"
            values[name] = rule.measured.coverage
            values |= {f"{name}, {c}": v for c, v in rule.measured.per_class.items()}
    return _results(values)


def _results(values: dict[str, float | Interval]) -> list[MetricResult]:
    return [MetricResult(label=label, value=value) for label, value in values.items()]
