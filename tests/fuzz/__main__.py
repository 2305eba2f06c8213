"""Fuzz a decoder with Atheris: `python -m tests.fuzz TARGET [option of libFuzzer]...`.

```
.tools/bin/uv sync --frozen --inexact --group fuzz
.venv/bin/python -m tests.fuzz picture -max_total_time=600
```

Inputs that reach new code are kept in `runs/fuzz/TARGET`; one that a decoder answers with anything
but a refusal ends the run and is written as `runs/fuzz/TARGET-crash-...`. Mend the decoder, and add
it to `tests/fuzz/corpus/TARGET`, where every run of the tests tries it again.
"""

import sys
import warnings
from pathlib import Path

import atheris

DICTIONARIES = [f"pydicom.{name}" for name in ("_dicom_dict", "_private_dict", "_uid_dict", "sr")]

with atheris.instrument_imports(include=["app", "PIL", "pydicom"], exclude=DICTIONARIES):
    from tests.fuzz.targets import CORPUS, TARGETS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [option of libFuzzer]...")
    name, options = sys.argv[1], sys.argv[2:]
    found = Path("runs/fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    # Atheris's own memory grows by gigabytes in a quarter of an hour; 40,000 damaged pictures took
    # none without it. What a decoder may take is for tests of its own.
    own = [f"-artifact_prefix={found}-", "-max_len=65536", "-rss_limit_mb=8192", "-timeout=60"]

    def run(data: bytes) -> None:
        TARGETS[name](data)

    atheris.Setup([sys.argv[0], *own, *options, str(found), str(CORPUS / name)], run)
    atheris.Fuzz()


main()
