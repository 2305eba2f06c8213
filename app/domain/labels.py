"""The seven diagnostic classes of HAM10000, in the order of every array of this project.

Source of the classes: Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Scientific
Data 5:180161 (2018), table 1 and "Data Records". Source of the codes: SNOMED CT,
International Edition; each code is the concept that names the class, or the commonest
member of a class that groups several diagnoses (`code_scope` says which). A class whose
concept could not be confirmed against a published SNOMED CT listing has no code: no code
is safer than a wrong one.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SNOMED_CT_SYSTEM: Final = "http://snomed.info/sct"


class Malignancy(StrEnum):
    """Biological behaviour of a class, as dermatology textbooks group it."""

    BENIGN = "benign"
    PREMALIGNANT = "pre-malignant"
    MALIGNANT = "malignant"


class CodeScope(StrEnum):
    """How a class relates to its SNOMED CT concept."""

    EXACT = "exact"
    """The concept names the class."""

    COMMONEST_MEMBER = "commonest-member"
    """The class groups several diagnoses; the concept is the commonest of them."""


@dataclass(frozen=True, slots=True)
class SnomedCode:
    """A SNOMED CT concept.

    Attributes:
        concept_id: Its identifier.
        display: Its preferred term.
        scope: Whether it names the class or the class's commonest member.
    """

    concept_id: str
    display: str
    scope: CodeScope


@dataclass(frozen=True, slots=True)
class DiagnosticClass:
    """One class a model can predict.

    Attributes:
        label: HAM10000's `dx` value, the name of the class in every API.
        name: Full English name.
        code: SNOMED CT concept, or None where none is confirmed.
        malignancy: Benign, pre-malignant or malignant.
    """

    label: str
    name: str
    code: SnomedCode | None
    malignancy: Malignancy


CLASSES: Final[tuple[DiagnosticClass, ...]] = (
    DiagnosticClass(
        "akiec",
        "Actinic keratosis or intraepithelial carcinoma (Bowen's disease)",
        SnomedCode("201101007", "Actinic keratosis", CodeScope.COMMONEST_MEMBER),
        Malignancy.PREMALIGNANT,
    ),
    DiagnosticClass(
        "bcc",
        "Basal cell carcinoma",
        SnomedCode("254701007", "Basal cell carcinoma of skin", CodeScope.EXACT),
        Malignancy.MALIGNANT,
    ),
    DiagnosticClass(
        "bkl",
        "Benign keratosis-like lesion (seborrhoeic keratosis, solar lentigo, "
        "lichen planus-like keratosis)",
        SnomedCode("25499005", "Seborrheic keratosis", CodeScope.COMMONEST_MEMBER),
        Malignancy.BENIGN,
    ),
    DiagnosticClass(
        "df",
        "Dermatofibroma",
        None,
        Malignancy.BENIGN,
    ),
    DiagnosticClass(
        "mel",
        "Melanoma",
        SnomedCode("93655004", "Malignant melanoma of skin", CodeScope.EXACT),
        Malignancy.MALIGNANT,
    ),
    DiagnosticClass(
        "nv",
        "Melanocytic nevus",
        SnomedCode("400096001", "Melanocytic nevus", CodeScope.EXACT),
        Malignancy.BENIGN,
    ),
    DiagnosticClass(
        "vasc",
        "Vascular lesion (angioma, angiokeratoma, pyogenic granuloma, haemorrhage)",
        SnomedCode("400210000", "Hemangioma", CodeScope.COMMONEST_MEMBER),
        Malignancy.BENIGN,
    ),
)

LABELS: Final[tuple[str, ...]] = tuple(c.label for c in CLASSES)
NUM_CLASSES: Final = len(CLASSES)
CLASS_INDEX: Final[dict[str, int]] = {label: i for i, label in enumerate(LABELS)}
