"""The fields of a model's card as data, those of CHAI's Applied Model Card.

After the Coalition for Health AI's schema, version 0.2 (`AppliedModelCard` in
https://mc.chai.org/v0.2/schema.xsd), in snake case; fields that it lets be absent and that nothing
is known for are left out.
"""

from typing import Final, Literal

from app.domain.measurements import Interval, Strict
from app.domain.notice import RESEARCH_USE_NOTICE

SCHEMA: Final = "https://mc.chai.org/v0.2/schema.xsd"


class BasicInfo(Strict):
    """Who made what."""

    model_name: str
    model_developer: str
    developer_contact: str


class ReleaseInfo(Strict):
    """What was released, where it may be used."""

    release_stage: str
    release_version: str
    model_digest: str
    global_availability: str
    regulatory_approval: str


class ModelSummary(Strict):
    """What it is, in a sentence."""

    summary: str
    keywords: list[str]


class UsesAndDirections(Strict):
    """What for, by whom, on whom."""

    intended_use_and_workflow: str
    primary_intended_users: str
    how_to_use: str
    targeted_patient_population: str
    cautioned_out_of_scope_settings: str


class Warnings(Strict):
    """What can go wrong."""

    known_risks_and_limitations: list[str]
    known_biases_or_ethical_considerations: list[str]
    clinical_risk_level: str


class AISystemFacts(Strict):
    """How it works and what it was made from."""

    outcomes_and_outputs: str
    model_type: str
    input_data_source: str
    output_and_input_data_types: str
    development_data_characterization: str
    bias_mitigation_approaches: str
    ongoing_maintenance: str
    security: str


class TransparencyInformation(Strict):
    """Who paid, who was asked."""

    funding_source: str
    third_party_information: str
    stakeholders_consulted: str


class TrustIngredients(Strict):
    """Facts and where they come from."""

    ai_system_facts: AISystemFacts
    transparency_information: TransparencyInformation


class MetricResult(Strict):
    """A figure: a number, or one with its 95 % interval."""

    label: str
    value: float | Interval


class KeyMetric(Strict):
    """Figures of one kind, and what they mean."""

    metric_goal: str
    results: list[MetricResult]
    interpretation: str
    test_type: str
    testing_data_description: str
    validation_process_and_justification: str


class KeyMetrics(Strict):
    """Usefulness, fairness, safety."""

    usefulness_usability_efficacy: KeyMetric
    fairness_equity: KeyMetric
    safety_reliability: KeyMetric


class Resources(Strict):
    """What to read."""

    peer_reviewed_publications: list[str]
    patient_consent_or_disclosure: str


class AppliedModelCard(Strict):
    """The card of a model or of the ensemble."""

    schema_name: Literal["https://mc.chai.org/v0.2/schema.xsd"] = SCHEMA
    notice: str = RESEARCH_USE_NOTICE
    basic_info: BasicInfo
    release_info: ReleaseInfo
    model_summary: ModelSummary
    uses_and_directions: UsesAndDirections
    warnings: Warnings
    trust_ingredients: TrustIngredients
    key_metrics: KeyMetrics
    resources: Resources
