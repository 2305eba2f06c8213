"""Time the committed artifacts one image at a time: `python -m training.bench`.

Writes `docs/results/serving.json`. Models take turns, so that whatever else the machine does
falls on all of them alike: compare them with each other, not with another machine's figures.
"""

import platform
import statistics
import time
from pathlib import Path
from typing import Any, Final

from app.domain.golden import golden_input
from app.inference.registry import load_registry
from app.inference.tensorflow_engine import TensorFlowEngine
from training.fit import describe_hardware
from training.run_folder import write_json

MODELS: Final = Path("models")
OUTPUT: Final = Path("docs/results/serving.json")
ROUNDS: Final = 30


def main() -> None:
    """Measure and write."""
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUTPUT, measure(MODELS, ROUNDS))


def measure(models_dir: Path, rounds: int) -> dict[str, Any]:
    """Median and 90th percentile of one image's pass, and each artifact's size.

    Args:
        models_dir: Folder of all artifacts.
        rounds: Passes of each model.

    Returns:
        JSON values: hardware, rounds, models by `name@version`.
    """
    models = {
        f"{model.manifest.name}@{model.manifest.version}": model
        for model in load_registry(models_dir, None, TensorFlowEngine).all()
    }
    seconds: dict[str, list[float]] = {key: [] for key in models}
    inputs, sizes = {}, {}
    for key, model in models.items():
        folder = models_dir / model.manifest.name / str(model.manifest.version)
        inputs[key] = golden_input(folder, model.manifest)
        sizes[key] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for _ in range(rounds):
        for key, model in models.items():
            started = time.perf_counter()
            model.engine.predict(inputs[key])
            seconds[key].append(time.perf_counter() - started)
    return {
        "hardware": f"{describe_hardware()}, {platform.system()}",
        "rounds": rounds,
        "models": {
            key: {
                "median_ms": round(statistics.median(times) * 1e3, 1),
                "p90_ms": round(statistics.quantiles(times, n=10)[-1] * 1e3, 1),
                "artifact_mb": round(sizes[key] / 1e6, 1),
            }
            for key, times in sorted(seconds.items())
        },
    }


if __name__ == "__main__":
    main()
