"""Fuzz a decoder with Atheris: `python -m tests.fuzz TARGET SECONDS [option of libFuzzer]...`.

```
.tools/bin/uv sync --frozen --inexact --group fuzz
.venv/bin/python -m tests.fuzz picture 900
```

Inputs that reach new code are kept in `runs/fuzz/TARGET`; one that a decoder answers with anything
but a refusal ends the run and is written as `runs/fuzz/TARGET-crash-...`. Mend the decoder, and add
it to `tests/fuzz/corpus/TARGET`, where every run of the tests tries it again.

Atheris's own memory grows by some 19 KB with each input, so that each part of the time is a process
of its own, which goes on from what the ones before it kept.
"""

import subprocess
import sys
import time
from typing import Final

PART_SECONDS: Final = 180


def main() -> None:
    """Fuzz for so long, or until something is found; the exit status says which."""
    if len(sys.argv) < 3 or not sys.argv[2].isdecimal():
        sys.exit("usage: python -m tests.fuzz TARGET SECONDS [option of libFuzzer]...")
    target, seconds, *options = sys.argv[1:]
    end = time.monotonic() + int(seconds)
    while (left := round(end - time.monotonic())) > 0:
        bound = f"-max_total_time={min(left, PART_SECONDS)}"
        part = [sys.executable, "-m", "tests.fuzz.part", target, bound, *options]
        status = subprocess.run(part, check=False).returncode
        if status:
            sys.exit(status)


main()
