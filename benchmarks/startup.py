"""What starting costs: `import seewhy`, and `seewhy demo` over importing torch and loading the model; warm, medians.

Target: the demo takes at most 3 s more than the imports and the model.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "python": "pass",
    "import seewhy": "import seewhy",
    "import torch, timm; load the model": "import seewhy; seewhy.load_model()",
    "seewhy demo": "import sys; from seewhy.cli import run; sys.exit(run(['demo', '--out', sys.argv[1]]))",
}
TARGET = 3.0


def seconds(code: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for code in COMMANDS.values():  # the first time reads the files from disk
        seconds(code)
    taken = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, code in COMMANDS.items():
            taken[name].append(seconds(code))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, value in medians.items():
        print(f"{name:36s} {value:6.2f} s")
    more = medians["seewhy demo"] - medians["import torch, timm; load the model"]
    print(
        f"the demo over the model loaded       {more:6.2f} s  target {TARGET} s: {'pass' if more <= TARGET else 'FAIL'}"
    )


if __name__ == "__main__":
    main()
