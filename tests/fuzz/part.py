"""One process of `python -m tests.fuzz`, with the decoders instrumented."""

import sys
import warnings
from pathlib import Path

import atheris

DICTIONARIES = [f"pydicom.{name}" for name in ("_dicom_dict", "_private_dict", "_uid_dict", "sr")]

with atheris.instrument_imports(include=["app", "PIL", "pydicom"], exclude=DICTIONARIES):
    from tests.fuzz.targets import CORPUS, TARGETS


def main() -> None:
    """Fuzz a target until a bound is reached or something is found."""
    name, *options = sys.argv[1:]
    if name not in TARGETS:
        sys.exit(f"no target {name}; there are: {', '.join(TARGETS)}")
    found = Path("runs/fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    own = [f"-artifact_prefix={found}-", "-print_final_stats=1", "-max_len=65536"]
    own += ["-rss_limit_mb=4096", "-timeout=60"]

    def run(data: bytes) -> None:
        TARGETS[name](data)

    atheris.Setup([sys.argv[0], *own, *options, str(found), str(CORPUS / name)], run)
    atheris.Fuzz()


main()
