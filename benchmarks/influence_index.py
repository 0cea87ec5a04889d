"""A query over stored gradients: seconds and memory, by how many there are and how they are stored.

Shards of random gradients are written as an index has them; then one test picture is asked about, top 10 and bottom 10.
The first query reads checksums too; printed are the median of the later ones, and how far anonymous memory, that which
the system cannot take back, rose above its level before the queries. Target: 100,000 gradients of 2,048 numbers in
under 0.5 s on 2 cores, in memory that does not grow with their number.

    python benchmarks/influence_index.py [--count N] [--width D] [--threads N] [--tests T]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from seewhy.influence import InfluenceIndex

TARGET = 0.5


class Stored:
    """A solver whose rows are given: numbers of the right size and nothing to compute."""

    name, passes, streams = "stored", 0, False

    def __init__(self, width: int) -> None:
        self.settings = {"width": width}
        self.width = width

    def fit(self, problem: object, batches: object, **_: object) -> None:
        """Needs nothing."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, problem: object, state: object) -> None:
        """There is nothing to take."""

    def train_rows(self, problem: object, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(int(labels.sum()) + len(labels))
        return {"rows": torch.randn(len(images), self.width, generator=generator)}

    def test_rows(self, problem: object, images: Tensor, score: object) -> dict[str, Tensor]:
        return {
            "rows": torch.randn(len(images), self.width, generator=torch.Generator().manual_seed(0))
        }

    def dot(self, test: dict[str, Tensor], train: dict[str, Tensor]) -> Tensor:
        return test["rows"] @ train["rows"].T

    def self_influence(self, problem: object, images: Tensor, labels: Tensor) -> Tensor:
        return torch.zeros(len(images))


def anonymous() -> int:
    """This process's memory in bytes without what is mapped from files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status; this benchmark needs Linux")


@contextmanager
def highest() -> Iterator[list[int]]:
    """Watches anonymous memory from another thread; the list's last number is the highest rise."""
    before, rises, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            rises.append(max(rises[-1], anonymous() - before))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield rises
    finally:
        done.set()
        thread.join()


def measure(count: int, width: int, dtype: str, tests: int, rounds: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    data = (torch.zeros(count, 1, 1, 1), torch.arange(count) % 2)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        index = InfluenceIndex.fit(
            model, data, solver=Stored(width), out=folder, dtype=dtype, batch_size=4096
        )
        written, stored = (
            time.perf_counter() - start,
            sum(p.stat().st_size for p in Path(folder).iterdir()),
        )
        index = InfluenceIndex.open(folder, model, solver=Stored(width))
        images, seconds = torch.zeros(tests, 1, 1, 1), []
        with highest() as rises:
            for _ in range(rounds + 1):
                start = time.perf_counter()
                index.query(images, 10)
                seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    judged = (
        f"  target {TARGET} s: {'pass' if median < TARGET else 'FAIL'}"
        if (count, tests) == (100_000, 1)
        else ""
    )
    print(
        f"{count:>7,} x {width:,} {dtype:<8} {tests:>3} tests  {stored / 1e6:6.0f} MB written in {written:5.1f} s  "
        f"first query {seconds[0]:5.2f} s  then {median:5.3f} s [{min(seconds[1:]):.3f}, {max(seconds[1:]):.3f}]  "
        f"memory +{rises[-1] / 1e6:4.0f} MB{judged}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--tests", type=int, default=32, help="pictures of the run with several")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for dtype in ("float32", "float16"):
        for count in (args.count // 4, args.count):
            measure(count, args.width, dtype, 1, args.rounds)
        measure(args.count, args.width, dtype, args.tests, args.rounds)


if __name__ == "__main__":
    main()
