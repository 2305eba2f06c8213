"""The research-use notice, in the wordings that every result carries."""

from typing import Final

RESEARCH_USE_NOTICE: Final = (
    "Research software. Not a medical device and not cleared for clinical use; it must not "
    "decide on a patient's care."
)
SHORT_NOTICE: Final = "AI research software. Not for diagnosis."
"""In pictures, which have no room for more."""
