"""Fixtures that several tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.domain.heatmaps import encode_png
from app.main import create_app
from app.settings import Settings
from tests.pictures import sharp_lesion
from tests.tiny_artifact import TINY_CALIBRATION, write_tiny_artifact
from training.synthetic import draw_lesion

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

PLAIN_MODEL = "tiny_plain"
ATTENTION_MODEL = "tiny_with_attention"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the slow files where several processes share the work, so that they end together.

    Each process takes a file at a time, for a file's tests share fixtures (`make test`).
    """
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one with attention; the plain one in two versions. Do not change them."""
    models = tmp_path_factory.mktemp("models")
    write_tiny_artifact(models, PLAIN_MODEL, version=1, seed=1)
    write_tiny_artifact(models, PLAIN_MODEL, version=2, seed=2)
    write_tiny_artifact(
        models, ATTENTION_MODEL, attention=True, seed=3, calibration=TINY_CALIBRATION
    )
    return models


@pytest.fixture
def own_models(tiny_models: Path, tmp_path: Path) -> Path:
    """A copy of the models that a test may damage."""
    return shutil.copytree(tiny_models, tmp_path / "models")


@pytest.fixture(scope="session")
def client(tiny_models: Path) -> Iterator[TestClient]:
    """The real service on the tiny models."""
    settings = Settings(
        models_dir=tiny_models, max_image_bytes=2_000_000, max_image_pixels=1_000_000
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as test_client:
        yield test_client


@pytest.fixture(scope="session")
def lesion_png() -> bytes:
    """A synthetic lesion, 320 x 240, of which no quality check complains."""
    return encode_png(sharp_lesion(320, 240))


@pytest.fixture(scope="session")
def samples() -> list[Path]:
    """Real dermatoscopic images, where they are at hand."""
    files = sorted((SHARED / "samples").glob("*.jpg"))
    if not files:
        pytest.skip("no real samples beside the project")
    return files


@pytest.fixture(scope="session")
def ham10000() -> Path:
    """The HAM10000 folder, where it is at hand."""
    folder = SHARED / "ham10000"
    if not (folder / "HAM10000_metadata.csv").exists():
        pytest.skip("no HAM10000 beside the project")
    return folder


@pytest.fixture(scope="session")
def synthetic_dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An image folder and a metadata CSV in HAM10000's layout: 7 x 10 lesions, 2 images each."""
    root = tmp_path_factory.mktemp("synthetic")
    return write_dataset(root, lesions_per_class=10, images_per_lesion=2)


def write_dataset(
    root: Path, *, lesions_per_class: int, images_per_lesion: int
) -> tuple[Path, Path]:
    """Write synthetic lesions as two image folders and a metadata CSV."""
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    number = 0
    for class_index, dx in enumerate(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")):
        for lesion in range(lesions_per_class):
            for _ in range(images_per_lesion):
                number += 1
                image_id = f"ISIC_{number:07d}"
                folder = root / f"HAM10000_images_part_{1 + number % 2}"
                folder.mkdir(exist_ok=True)
                picture = encode_png(draw_lesion(number, class_index, 120, 90))
                (folder / f"{image_id}.png").write_bytes(picture)
                age = "" if number % 5 == 0 else str(30 + number % 50)
                lines.append(f"HAM_{class_index}{lesion:03d},{image_id},{dx},histo,{age},male,back")
    metadata = root / "HAM10000_metadata.csv"
    metadata.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root, metadata
