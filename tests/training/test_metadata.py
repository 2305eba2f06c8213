"""Metadata as numbers."""

import numpy as np
import pandas as pd

from training.metadata import LOCALIZATIONS, METADATA_WIDTH, SEXES, encode_metadata

TABLE = pd.DataFrame(
    {
        "age": [80.0, np.nan, 0.0, 45.0],
        "sex": ["male", "female", "unknown", np.nan],
        "localization": ["scalp", "upper extremity", "unknown", "moon"],
    },
    index=[7, 3, 9, 1],  # rows of a part keep their numbers
)


def test_every_column_means_what_it_says() -> None:
    encoded = encode_metadata(TABLE)
    assert encoded.shape == (4, METADATA_WIDTH)
    assert encoded.dtype == np.float32
    assert METADATA_WIDTH == 20
    np.testing.assert_allclose(encoded[:, 0], [0.8, 0.0, 0.0, 0.45])
    np.testing.assert_array_equal(encoded[:, 1], [0, 1, 0, 0])
    sexes, places = encoded[:, 2:5], encoded[:, 5:]
    assert (sexes.sum(axis=1) == 1).all()
    assert (places.sum(axis=1) == 1).all()
    assert [SEXES[i] for i in sexes.argmax(axis=1)] == ["male", "female", "unknown", "unknown"]
    received = [LOCALIZATIONS[i] for i in places.argmax(axis=1)]
    assert received == ["scalp", "upper extremity", "unknown", "unknown"]


def test_a_table_with_every_value_missing_is_allowed() -> None:
    empty = pd.DataFrame({name: [np.nan, np.nan] for name in TABLE.columns})
    assert np.isfinite(encode_metadata(empty)).all()
