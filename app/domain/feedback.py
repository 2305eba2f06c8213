"""What a lesion turned out to be, as somebody reports it after an answer (ADR-0015)."""

from enum import StrEnum


class DiagnosisSource(StrEnum):
    """How a diagnosis was made, the strongest evidence first.

    The first four are HAM10000's `dx_type` (Tschandl, Rosendahl and Kittler, Scientific Data
    5:180161, 2018, "Data Records").
    """

    HISTOPATHOLOGY = "histo"
    CONFOCAL = "confocal"
    FOLLOW_UP = "follow_up"
    CONSENSUS = "consensus"
    CLINICAL = "clinical"
    """The opinion of one clinician, who may have seen the answer."""
