"""The answer that OpenAPI shows as an example."""

from typing import Any, Final

from app.domain.labels import LABELS, SNOMED_CT_SYSTEM
from app.domain.notice import RESEARCH_USE_NOTICE

_MAP: Final = (
    (0.0, 0.0, 0.01, 0.01, 0.01, 0.0, 0.0),
    (0.0, 0.01, 0.02, 0.03, 0.02, 0.01, 0.0),
    (0.01, 0.02, 0.09, 0.16, 0.12, 0.03, 0.01),
    (0.01, 0.03, 0.18, 0.31, 0.22, 0.04, 0.01),
    (0.01, 0.02, 0.11, 0.19, 0.14, 0.03, 0.01),
    (0.0, 0.01, 0.02, 0.03, 0.02, 0.01, 0.0),
    (0.0, 0.0, 0.01, 0.01, 0.01, 0.0, 0.0),
)
"""Evidence in the middle of the picture."""

ANSWER_EXAMPLE: Final[dict[str, Any]] = {
    "request_id": "6d0f3c2e8d1b4c5f9a7e2b1c0d9e8f7a",
    "model": {
        "name": "ensemble",
        "version": 1,
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "runtime": "openvino",
    },
    "decision": {
        "action": "report",
        "reasons": [],
        "sentence": "No reason was found against reading this answer as what it is, "
        "a research model's. It is no all-clear.",
    },
    "predicted_class": {
        "label": "nv",
        "name": "Melanocytic nevus",
        "malignancy": "benign",
        "coding": {
            "system": SNOMED_CT_SYSTEM,
            "code": "400096001",
            "display": "Melanocytic nevus",
            "scope": "exact",
        },
    },
    "confidence": 0.827,
    "calibrated": True,
    "probabilities": dict(zip(LABELS, (0.01, 0.018, 0.064, 0.01, 0.061, 0.827, 0.01), strict=True)),
    "prediction_sets": [{"coverage": 0.9, "labels": ["nv"], "pooled": []}],
    "operating_points": [
        {
            "target": "malignancy",
            "labels": ["akiec", "bcc", "mel"],
            "required_sensitivity": 0.9,
            "threshold": 0.11,
            "probability": 0.089,
            "positive": False,
        }
    ],
    "quality": {
        "issues": [],
        "scores": {
            "sharpness": -0.5,
            "brightness": 72.2,
            "clipped": 0.0,
            "contrast": 9.8,
            "red_to_green": 1.45,
            "blue_to_green": 1.05,
            "shorter_side": 450.0,
            "lesion_contrast": 41.0,
            "lesion_offset": 0.08,
            "hair": 0.004,
            "ink": 0.0,
        },
    },
    "out_of_distribution": {"score": 0.61, "threshold": 0.94},
    "uncertainty": {
        "views": 8,
        "standard_deviation": dict(
            zip(LABELS, (0.004, 0.01, 0.03, 0.002, 0.02, 0.05, 0.001), strict=True)
        ),
        "same_class": 1.0,
    },
    "ensemble": {
        "disagreement": 0.016,
        "members": [
            {
                "model": {
                    "name": name,
                    "version": 1,
                    "digest": digest * 64,
                    "runtime": "openvino",
                },
                "weight": weight,
                "predicted_class": "nv",
                "confidence": values[5],
                "probabilities": dict(zip(LABELS, values, strict=True)),
            }
            for name, digest, weight, values in (
                (
                    "cnn_densenet121",
                    "1",
                    0.6,
                    (0.01, 0.01, 0.05, 0.01, 0.05, 0.86, 0.01),
                ),
                (
                    "cnn_resnet50v2_attention",
                    "2",
                    0.4,
                    (0.01, 0.04, 0.09, 0.01, 0.08, 0.76, 0.01),
                ),
            )
        ],
    },
    "heatmap": {
        "model": "cnn_densenet121@1",
        "media_type": "image/png",
        "overlay": "iVBORw0KGgoAAAANSUhEUgAA...",
        "method": "grad-cam",
        "explained_class": "nv",
        "map": [list(row) for row in _MAP],
        "scale": 0.31,
        "share_at_border": 0.06,
        "share_in_lesion": 0.66,
        "flags": [],
    },
    "image": {"width": 600, "height": 450, "media_type": "image/jpeg", "frame": None},
    "notice": RESEARCH_USE_NOTICE,
}
