"""Images from elsewhere are measured through the serving code, and bad labels are refused."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from app.domain.ensemble import pool
from app.domain.errors import ArtifactDigestError
from app.domain.heatmaps import encode_png
from app.domain.images import decode_image, to_model_input
from app.domain.labels import LABELS
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules, write_tiny_ensemble
from training import external
from training.external import evaluate_external, read_labels
from training.prepare import DatasetError
from training.served import load_artifact, load_classifier
from training.synthetic import draw_lesion

ISIC = [label.upper() for label in LABELS]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny artifacts and their ensemble."""
    folder = tmp_path_factory.mktemp("models")
    members = [
        write_tiny_artifact(
            folder, name, seed=i, calibration=tiny_calibration(tiny_point()), decision=tiny_rules()
        )
        for i, name in enumerate(("one", "two"))
    ]
    points = tiny_point(), tiny_point("melanoma", ["mel"], 0.1)
    write_tiny_ensemble(
        folder, members, (0.25, 0.75), calibration=tiny_calibration(*points, temperature=2.0)
    )
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(14):
        (folder / f"IMG_{index}.png").write_bytes(encode_png(draw_lesion(index, index % 7)))
    return folder


def write_csv(path: Path, header: list[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def plain(path: Path) -> Path:
    return write_csv(
        path / "labels.csv", ["image", "dx"], [[f"IMG_{i}", LABELS[i % 7]] for i in range(14)]
    )


def quiet(_done: int, _total: int) -> None:
    pass


def test_both_forms_of_labels_give_the_answers_of_the_served_model(
    models: Path, images: Path, tmp_path: Path
) -> None:
    one_hot = [[f"IMG_{i}", *np.eye(7, dtype=int)[i % 7]] for i in range(14)]
    isic = write_csv(tmp_path / "isic.csv", ["image", *ISIC], one_hot)
    target = models / "one" / "1"
    first = evaluate_external(target, images, plain(tmp_path), tmp_path / "a", quiet)
    assert first == evaluate_external(target, images, isic, tmp_path / "b", quiet)
    assert (first.part, first.num_images) == ("external", 14)

    model = load_artifact(target)
    inputs = np.stack(
        [
            to_model_input(decode_image((images / f"IMG_{i}.png").read_bytes()).pixels)
            for i in range(14)
        ]
    )
    expected = model.engine.predict(inputs)["probabilities"]
    with (tmp_path / "a" / "predictions.csv").open() as file:
        written = [[float(row[label]) for label in LABELS] for row in csv.DictReader(file)]
    np.testing.assert_allclose(written, expected, atol=1e-5)
    right = (expected.argmax(axis=1) == np.arange(14) % 7).mean()
    assert first.accuracy.value == pytest.approx(right, abs=1e-4)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["num_images"] == 14
    report = (tmp_path / "a" / "report.md").read_text()
    assert "Not a medical device" in report
    assert "HAM10000's own" not in report
    assert "a bootstrap over images, for the labels have no column `lesion_id`" in report
    rows = [[f"IMG_{i}", LABELS[i % 7], f"L{i // 2}"] for i in range(14)]
    by_lesion = write_csv(tmp_path / "lesions.csv", ["image", "dx", "lesion_id"], rows)
    grouped = evaluate_external(target, images, by_lesion, tmp_path / "c", quiet)
    assert grouped.accuracy.value == first.accuracy.value
    assert "a bootstrap over lesions;" in (tmp_path / "c" / "report.md").read_text()


def test_images_that_the_models_learnt_from_are_no_images_from_elsewhere(
    models: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    names = {"ISIC_0024306": "nv", "ISIC_0034321.png": "mel"}
    for name in names:
        path = tmp_path / "images" / f"{Path(name).stem}.png"
        path.write_bytes(encode_png(draw_lesion(1, 4)))
    labels = write_csv(
        tmp_path / "labels.csv", ["image", "dx"], [[*item] for item in names.items()]
    )
    evaluate_external(models / "one" / "1", tmp_path / "images", labels, tmp_path / "out", quiet)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "**1 of these images are HAM10000's own (ISIC_0024306, ...)" in report
    assert "| vasc | 0 | | | | |" in report  # no recall of what is not there


def test_the_ensemble_pools_its_members_and_brings_its_operating_points(
    models: Path, images: Path, tmp_path: Path
) -> None:
    metrics = evaluate_external(
        models / "ensemble.json", images, plain(tmp_path), tmp_path / "out", quiet
    )
    assert [p.threshold for p in metrics.operating_points] == [0.3, 0.1]
    picture = to_model_input(draw_lesion(3, 3))[None]
    answers = {
        name: load_artifact(models / name / "1").engine.predict(picture)["probabilities"]
        for name in ("one", "two")
    }
    log = 0.25 * np.log(answers["one"]) + 0.75 * np.log(answers["two"])
    expected = np.exp(log / 2.0) / np.exp(log / 2.0).sum()
    np.testing.assert_allclose(
        load_classifier(models / "ensemble.json").predict(picture), expected, rtol=1e-4
    )


def test_an_ensemble_of_other_members_than_it_was_calibrated_with_is_refused(
    models: Path, tmp_path: Path
) -> None:
    for name, seed in (("one", 4), ("two", 5)):
        write_tiny_artifact(tmp_path, name, seed=seed)
    (tmp_path / "ensemble.json").write_text((models / "ensemble.json").read_text())
    with pytest.raises(ArtifactDigestError, match="one version 1 has digest"):
        load_classifier(tmp_path / "ensemble.json")


def test_pooling_refuses_other_names_and_survives_a_certain_member() -> None:
    certain = np.eye(7, dtype=np.float32)[:1]
    even = np.full((1, 7), 1 / 7, np.float32)
    with pytest.raises(ValueError, match="the ensemble's models are"):
        pool({"one": even}, {"one": 0.5, "two": 0.5}, 1.0)
    pooled = pool({"one": certain, "two": even}, {"one": 0.5, "two": 0.5}, 1.0)
    assert np.isfinite(pooled).all()
    assert pooled.sum() == pytest.approx(1.0, abs=1e-6)
    assert pooled[0, 0] > 0.99


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        (["name", "dx"], [["a", "nv"]], "expected `image` and `dx`"),
        (["image", "dx"], [["a", "scc"]], "'scc'; expected one of akiec"),
        (["image", "dx"], [["../../etc/passwd", "nv"]], "no name of an image"),
        (["image", "dx"], [["a", "nv"], ["a", "mel"]], "there twice"),
        (["image", *ISIC], [["a", 1, 1, 0, 0, 0, 0, 0]], "none of the seven"),
        (["image", *ISIC], [["a", 0, 0, 0, 0, 0, 0, 0]], "none of the seven"),
        (["image", *ISIC], [["a", "x", 1, 0, 0, 0, 0, 0]], "none of the seven"),
        (["image", "dx"], [], "0 of 0"),
    ],
    ids=["columns", "class", "path", "twice", "two classes", "no class", "text", "empty"],
)
def test_wrong_labels_are_refused_by_row(
    header: list[str], rows: list[list[object]], words: str, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "labels.csv", header, rows)
    with pytest.raises(DatasetError) as caught:
        read_labels(path)
    assert words in " ".join([str(caught.value), *caught.value.problems])


def test_a_missing_or_broken_image_leaves_nothing_behind(
    models: Path, images: Path, tmp_path: Path
) -> None:
    missing = write_csv(tmp_path / "labels.csv", ["image", "dx"], [["absent", "nv"]])
    target, output = models / "one" / "1", tmp_path / "out"
    with pytest.raises(DatasetError) as caught:
        evaluate_external(target, images, missing, output, quiet)
    assert caught.value.problems == ["absent: no file of that name"]
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "absent.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(DatasetError) as caught:
        evaluate_external(target, folder, missing, output, quiet)
    assert "absent.jpg" in caught.value.problems[0]
    shutil.copy(folder / "absent.jpg", folder / "too.jpg")
    shutil.copy(images / "IMG_1.png", folder / "good.png")
    rows = [["absent", "nv"], ["good", "nv"], ["too", "nv"]]
    three = write_csv(tmp_path / "three.csv", ["image", "dx"], rows)
    with pytest.raises(DatasetError, match="2 of 3 images cannot be used") as caught:
        evaluate_external(target, folder, three, output, quiet)
    assert "too.jpg" in caught.value.problems[1]
    assert not output.exists()


def test_a_name_is_that_of_one_file_and_a_file_counts_once(
    models: Path, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "b.png"):
        shutil.copy(images / "IMG_1.png", folder / name)
    rows = [["a", "nv"], ["a.jpg", "nv"], ["b", "nv"], ["b.png", "nv"]]
    labels = write_csv(tmp_path / "labels.csv", ["image", "dx"], rows)
    target, output = models / "one" / "1", tmp_path / "out"
    with pytest.raises(DatasetError, match="3 of 4 images cannot be told") as caught:
        evaluate_external(target, folder, labels, output, quiet)
    assert caught.value.problems == [
        "a: a.jpg and a.png; give the name with its suffix",
        "b: b.png is there in another row, too",
        "b.png: b.png is there in another row, too",
    ]
    labels = write_csv(tmp_path / "labels.csv", ["image", "dx"], [["a.jpg", "nv"], ["b", "nv"]])
    assert evaluate_external(target, folder, labels, output, quiet).num_images == 2


def test_more_labels_than_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_LABELS", 2)
    path = write_csv(tmp_path / "labels.csv", ["image", "dx"], [[f"i{n}", "nv"] for n in range(3)])
    with pytest.raises(DatasetError, match="3 rows; at most 2 fit"):
        read_labels(path)
