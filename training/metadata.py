"""A patient's age, sex and the lesion's place as numbers; knows nothing of TensorFlow.

```
age / 100 | age is missing | female male unknown | 15 places
```
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

UNKNOWN: Final = "unknown"

SEXES: Final = ("female", "male", UNKNOWN)

LOCALIZATIONS: Final = (
    "abdomen",
    "acral",
    "back",
    "chest",
    "ear",
    "face",
    "foot",
    "genital",
    "hand",
    "lower extremity",
    "neck",
    "scalp",
    "trunk",
    UNKNOWN,
    "upper extremity",
)
"""The values of HAM10000's column `localization`."""

METADATA_WIDTH: Final = 2 + len(SEXES) + len(LOCALIZATIONS)

_AGE_SCALE_YEARS: Final = 100.0


def encode_metadata(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Encode rows of `PreparedData.table`.

    Args:
        table: With `age` in years, `sex` and `localization`; any may be missing, and a value
            that HAM10000 does not have counts as unknown.

    Returns:
        (num_rows, 20) float32 in [0, 1] for ages up to 100 years.
    """
    age = table["age"].to_numpy(np.float64) / _AGE_SCALE_YEARS
    missing = np.isnan(age)
    columns = [np.where(missing, 0.0, age)[:, None], missing[:, None]]
    for name, values in (("sex", SEXES), ("localization", LOCALIZATIONS)):
        entries = table[name].where(table[name].isin(values), UNKNOWN).to_numpy()
        columns.append(entries[:, None] == np.array(values, dtype=object)[None])
    return np.concatenate(columns, axis=1).astype(np.float32)
