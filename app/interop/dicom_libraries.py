"""Keep the DICOM libraries from telling what they read; imported before any of them is used.

They log and warn about values that break the standard, and quote them: a patient's name in the
wrong field would be in the service's log.
"""

import logging
import warnings

from pydicom import config

LIBRARIES = ("pydicom", "highdicom", "pynetdicom", "dicomweb_client")

# Values are checked where they are used, by code that does not quote them.
config.settings.reading_validation_mode = config.IGNORE
for _library in LIBRARIES:
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=rf"{_library}(\.|$)")
