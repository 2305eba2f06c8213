"""Splits, checks and the prepared folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.domain.images import ImageLimits, decode_image, to_model_input
from training.config import Protocol
from training.prepare import DatasetError, Part, PreparedData, load_prepared, prepare, split

SEED = 3


def quiet(_done: int, _total: int) -> None:
    pass


def run(root: Path, metadata: Path, output: Path, protocol: Protocol) -> PreparedData:
    return prepare([root], metadata, output, protocol, SEED, quiet)


@pytest.fixture(scope="module")
def prepared(
    synthetic_dataset: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[Protocol, PreparedData]:
    output = tmp_path_factory.mktemp("prepared")
    return {p: run(*synthetic_dataset, output / p.value, p) for p in Protocol}


@pytest.fixture
def own_dataset(synthetic_dataset: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    root = shutil.copytree(synthetic_dataset[0], tmp_path / "copy")
    return root, root / "HAM10000_metadata.csv"


@pytest.mark.parametrize("protocol", list(Protocol))
def test_parts_are_64_16_20_of_each_class(
    prepared: dict[Protocol, PreparedData], protocol: Protocol
) -> None:
    data = prepared[protocol]
    shares = {part: len(data.rows(part)) / len(data.table) for part in Part}
    assert shares[Part.TRAIN] == pytest.approx(0.64, abs=0.03)
    assert shares[Part.VALIDATION] == pytest.approx(0.16, abs=0.03)
    assert shares[Part.TEST] == pytest.approx(0.20, abs=0.03)
    for part in Part:
        counts = np.bincount(data.labels(data.rows(part)), minlength=7)
        assert counts.max() - counts.min() <= 2


def test_lesion_protocol_keeps_a_lesion_together(
    prepared: dict[Protocol, PreparedData],
) -> None:
    def lesions_in_several_parts(protocol: Protocol) -> int:
        table = prepared[protocol].table
        return int((table.groupby("lesion_id")["part"].nunique() > 1).sum())

    assert lesions_in_several_parts(Protocol.LESION) == 0
    assert lesions_in_several_parts(Protocol.PAPER) > 0  # the leak that it is named for


def test_same_seed_same_split_other_seed_other_split(
    synthetic_dataset: tuple[Path, Path], prepared: dict[Protocol, PreparedData], tmp_path: Path
) -> None:
    first = prepared[Protocol.LESION]
    again = run(*synthetic_dataset, tmp_path / "again", Protocol.LESION)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first.fingerprint == again.fingerprint
    root, metadata = synthetic_dataset
    other = prepare([root], metadata, tmp_path / "other", Protocol.LESION, SEED + 1, quiet)
    assert (other.table["part"] != first.table["part"]).any()
    assert other.fingerprint == first.fingerprint


def test_training_sees_the_tensor_that_serving_sees(
    synthetic_dataset: tuple[Path, Path], prepared: dict[Protocol, PreparedData]
) -> None:
    data = prepared[Protocol.LESION]
    for row in (0, 50, 139):
        image_id = data.table["image_id"][row]
        (path,) = synthetic_dataset[0].rglob(f"{image_id}.png")
        decoded = decode_image(path.read_bytes(), ImageLimits(min_side_pixels=32))
        np.testing.assert_array_equal(data.images[row], to_model_input(decoded.pixels))


def test_folder_can_be_opened_again(prepared: dict[Protocol, PreparedData]) -> None:
    data = prepared[Protocol.PAPER]
    again = load_prepared(data.directory)
    assert (again.protocol, again.seed, again.fingerprint) == (
        Protocol.PAPER,
        SEED,
        data.fingerprint,
    )
    facts = json.loads((data.directory / "dataset.json").read_text())
    assert facts["num_images"] == 140
    assert facts["num_lesions"] == 70
    assert sum(sum(c.values()) for c in facts["counts"].values()) == 140


def test_fingerprint_follows_every_byte_and_label(
    own_dataset: tuple[Path, Path], prepared: dict[Protocol, PreparedData], tmp_path: Path
) -> None:
    root, metadata = own_dataset
    picture = next(root.rglob("ISIC_0000003.png"))
    shutil.copy(next(root.rglob("ISIC_0000004.png")), picture)
    changed = run(root, metadata, tmp_path / "changed", Protocol.LESION)
    before = prepared[Protocol.LESION].fingerprint
    assert changed.fingerprint != before
    shutil.copy(next(root.rglob("ISIC_0000005.png")), picture)
    text = metadata.read_text()
    lines = text.splitlines()
    name = lines[1].split(",")[0]
    other = next(line.split(",")[0] for line in lines[1:] if not line.startswith(f"{name},"))
    seen = {before, changed.fingerprint}
    for old, new in ((f"\n{name},", f"\n{other},"), (",akiec,", ",bcc,")):
        metadata.write_text(text.replace(old, new, 1))
        seen.add(run(root, metadata, tmp_path / f"{len(seen)}", Protocol.LESION).fingerprint)
    assert len(seen) == 4


def test_every_wrong_row_is_listed_and_nothing_is_written(
    own_dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    root, metadata = own_dataset
    lines = metadata.read_text().splitlines()
    lines[3] = lines[3].replace(",akiec,", ",wart,")
    lines[5] = lines[4]
    lines[7] = "," + lines[7].split(",", 1)[1]
    age = lines[0].split(",").index("age")
    for number, text in ((9, "old"), (10, "-3"), (11, "")):
        fields = lines[number].split(",")
        lines[number] = ",".join([*fields[:age], text, *fields[age + 1 :]])
    metadata.write_text("\n".join(lines))
    with pytest.raises(DatasetError) as caught:
        run(root, metadata, tmp_path / "out" / "data", Protocol.LESION)
    text = "\n".join(caught.value.problems)
    assert "line 4: unknown dx 'wart'" in text
    assert "line 8: image_id or lesion_id is empty" in text
    assert "ISIC_0000004 stands in 2 rows" in text
    assert "line 10: age 'old'; expected years, 0 to 120, or nothing" in text
    assert "line 11: age '-3'" in text
    assert "line 12" not in text
    assert not (tmp_path / "out").exists()


def test_missing_and_double_files_are_listed(
    own_dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    root, metadata = own_dataset
    next(root.rglob("ISIC_0000010.png")).unlink()
    twice = next(root.rglob("ISIC_0000011.png"))
    shutil.copy(twice, root / "ISIC_0000011.png")
    with pytest.raises(DatasetError) as caught:
        run(root, metadata, tmp_path / "data", Protocol.LESION)
    assert len(caught.value.problems) == 2
    assert "ISIC_0000010: no image file" in caught.value.problems[0]
    assert "ISIC_0000011: 2 files" in caught.value.problems[1]


def test_unreadable_images_are_listed_and_nothing_is_left(
    own_dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    root, metadata = own_dataset
    for number in (20, 130):
        path = next(root.rglob(f"ISIC_{number:07d}.png"))
        path.write_bytes(path.read_bytes()[:200])
    output = tmp_path / "out"
    with pytest.raises(DatasetError) as caught:
        run(root, metadata, output / "data", Protocol.LESION)
    assert [("0000020" in p or "0000130" in p) for p in caught.value.problems] == [True, True]
    assert list(output.iterdir()) == []


def test_existing_output_is_not_touched(own_dataset: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "data"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="exists already"):
        run(*own_dataset, output, Protocol.LESION)
    assert (output / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n"])
def test_other_csv_is_refused(content: str, own_dataset: tuple[Path, Path], tmp_path: Path) -> None:
    root, metadata = own_dataset
    metadata.write_text(content)
    with pytest.raises(DatasetError, match=r"HAM10000_metadata\.csv"):
        run(root, metadata, tmp_path / "data", Protocol.LESION)


def test_no_prepared_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="training prepare"):
        load_prepared(tmp_path)


def test_a_damaged_prepared_folder_is_refused(
    prepared: dict[Protocol, PreparedData], tmp_path: Path
) -> None:
    whole = prepared[Protocol.LESION].directory
    damages: dict[str, bytes] = {
        "dataset.json": b"{}",
        "split.csv": b"image_id,lesion_id\n",
        "images.npy": b"",
    }
    for name, content in damages.items():
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(content)
        with pytest.raises(DatasetError, match="training prepare"):
            load_prepared(folder)
    folder = tmp_path / "shape"
    shutil.copytree(whole, folder)
    np.save(folder / "images.npy", np.load(whole / "images.npy").astype(np.float32))
    with pytest.raises(DatasetError, match="float32 of"):
        load_prepared(folder)


def test_real_metadata_split_has_no_shared_lesion(ham10000: Path) -> None:
    table = pd.read_csv(ham10000 / "HAM10000_metadata.csv")
    table["part"] = split(table, Protocol.LESION, 20180814)
    assert table["part"].value_counts().to_dict() == {
        "train": 6408,
        "validation": 1603,
        "test": 2004,
    }
    assert (table.groupby("lesion_id")["part"].nunique() == 1).all()
