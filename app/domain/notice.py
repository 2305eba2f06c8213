"""The research-use notice, in the one wording that every result carries."""

from typing import Final

RESEARCH_USE_NOTICE: Final = (
    "Research software. Not a medical device and not cleared for clinical use; it must not "
    "decide on a patient's care."
)
