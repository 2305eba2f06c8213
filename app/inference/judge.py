"""Apply a model's rules to one of its answers."""

from dataclasses import dataclass

from app.domain.decision import Action, Decision, Evidence, Gates, decide
from app.domain.quality import QualityReport
from app.domain.uncertainty import Uncertainty
from app.inference.explain import Prediction
from app.inference.registry import Loaded


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer and what is to become of it.

    Attributes:
        model: Who answered.
        prediction: The answer, which must not be shown where it is rejected.
        decision: What is to become of it.
        quality: What was found out about the picture.
        uncertainty: Over the picture's symmetries, where it was asked for.
    """

    model: Loaded
    prediction: Prediction
    decision: Decision
    quality: QualityReport
    uncertainty: Uncertainty | None = None

    @property
    def rejected(self) -> bool:
        """Whether there is no answer."""
        return self.decision.action is Action.REJECT


def judge(model: Loaded, prediction: Prediction, quality: QualityReport, gates: Gates) -> Judged:
    """Decide on an answer.

    Args:
        model: Who answered.
        prediction: The answer.
        quality: What was found out about the picture.
        gates: Which findings reject it.
    """
    calibration = model.manifest.calibration
    decision = decide(
        Evidence(
            prediction.probabilities,
            prediction.novelty,
            prediction.disagreement,
            bool(quality.issues),
        ),
        model.manifest.decision,
        calibration.operating_points if calibration else (),
        gates,
    )
    return Judged(model, prediction, decision, quality)
