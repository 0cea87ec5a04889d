"""How long does LIME take, over the bare forward passes and beside the lime package?

Everything in one run, one after another in rounds; medians of the rounds' times and ratios. The photo is scikit-image's
chelsea, the model the embedded one at 224 x 224, the targets its top five classes from one sample.

    python benchmarks/lime_images.py [--samples N] [--rounds N] [--threads N] [--no-peer] [--cpu]

- bare: as many forward passes of masked pictures that are already made, at the setting that LIME's are run at.
- LIME, labels given: everything but the superpixels.
- LIME: with quickshift, as the package.
- LIME, bfloat16: the same with `Running(precision="auto")`, which takes bfloat16 where it is faster and ranks alike.
- the lime package, as its users call it: batches of ten, the preprocessing of the photo in the classifier; once in this
  process, whose allocator keeps its memory, and once in one of its own, whose allocator does what it does by default.

On a machine that others use, `--cpu --threads 1` counts the processor's seconds instead of the clock's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage import data
from torch import Tensor

import seewhy
from seewhy.engine.masking import (
    Running,
    SuperpixelMasks,
    SuperpixelMean,
    keep_allocator_memory,
    settle,
)
from seewhy.engine.targets.classes import Probability
from seewhy.methods.lime.lime import lime
from seewhy.methods.lime.superpixels import segment
from seewhy.models.call import call_of


class Job:
    """The photo, the model, and what is timed."""

    def __init__(self, samples: int) -> None:
        self.samples, self.model = samples, seewhy.load_model()
        assert self.model.preprocess is not None
        self.x = self.model.preprocess(Image.fromarray(data.chelsea()))[0][None]
        self.photo: npt.NDArray[np.uint8] = self.model.preprocess.invert(self.x)[0]
        self.call = call_of(self.model)
        self.module = self.call.module
        with torch.inference_mode():
            top = self.module(self.x).topk(5).indices[0].tolist()
        self.scores = [Probability(index) for index in top]
        self.labels = segment(self.x, bounds=self.call.bounds)[0]
        shown = torch.rand(samples, int(self.labels.max()) + 1) < 0.5
        self.masks, self.baseline = SuperpixelMasks(shown, self.labels), SuperpixelMean(self.labels)
        self.running = settle(
            self.call, self.x, [self.masks], self.scores, baseline=self.baseline, running=Running()
        )
        self.made = self._made()

    def _made(self) -> Tensor:
        """A batch of masked pictures as the engine makes them."""
        mask = self.masks.render(
            0, min(self.running.batch_size or 1, self.samples), torch.device("cpu")
        )[:, None]
        made = torch.lerp(self.baseline.picture(self.x[0])[None], self.x, mask)
        last = self.running.memory_format == "channels_last"
        return made.contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )

    def bare(self) -> None:
        with (
            torch.no_grad(),
            torch.autocast("cpu", torch.bfloat16, enabled=self.running.precision == "bfloat16"),
        ):
            for start in range(0, self.samples, len(self.made)):
                self.module(self.made[: self.samples - start])

    def ours(self, **options: Any) -> None:
        assert lime.sample is not None
        chosen = {**lime.options, "samples": self.samples, **options}
        lime.run(self.call, self.x, self.scores, layer=None, **chosen)

    def given(self) -> None:
        self.ours(superpixels=self.labels)

    def rough(self) -> None:
        self.ours(running=Running(precision="auto"))

    def peer(self) -> None:
        from lime.lime_image import LimeImageExplainer

        preprocess = self.model.preprocess
        assert preprocess is not None

        def classify(photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            batch = torch.stack([preprocess(Image.fromarray(photo))[0] for photo in photos])
            with torch.inference_mode():
                return np.asarray(self.module(batch).softmax(1).numpy())

        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            LimeImageExplainer(random_state=0).explain_instance(
                self.photo, classify, top_labels=5, num_samples=self.samples
            )


def timed(what: Callable[[], None], cpu: bool) -> float:
    clock = time.process_time if cpu else time.perf_counter
    start = clock()
    what()
    return clock() - start


@cache
def _job(samples: int, threads: int) -> Job:
    """The other process's own."""
    torch.set_num_threads(threads)
    return Job(samples)


def peer_elsewhere(samples: int, threads: int, cpu: bool) -> float:
    return timed(_job(samples, threads).peer, cpu)


def measure(job: Job, rounds: int, peer: bool, cpu: bool) -> dict[str, list[float]]:
    what = {
        "bare": job.bare,
        "LIME, labels given": job.given,
        "LIME": job.ours,
        "LIME, bfloat16": job.rough,
    }
    if peer:
        what["lime package, memory kept"] = job.peer
    seconds: dict[str, list[float]] = {name: [] for name in what}
    for warm in (job.given, job.rough):  # what is measured once for a model is not timed
        warm()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        elsewhere = partial(other.submit, peer_elsewhere, threads=torch.get_num_threads(), cpu=cpu)
        if peer:
            importlib.import_module("lime.lime_image")  # imports are not timed
            elsewhere(samples=16).result()
        for _ in range(rounds):
            for name, run in what.items():
                seconds[name].append(timed(run, cpu))
            if peer:
                seconds.setdefault("lime package", []).append(
                    elsewhere(samples=job.samples).result()
                )
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=seewhy.errors.SeewhyWarning)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    kept = keep_allocator_memory()
    job = Job(args.samples)
    print(
        f"{args.samples} samples, {torch.get_num_threads()} threads, allocator keeps memory: {kept}, {job.running}"
    )
    seconds = measure(job, args.rounds, not args.no_peer, args.cpu)
    for name, times in seconds.items():
        over, under = (
            statistics.median(a / b for a, b in pairs)
            for pairs in (
                zip(times, seconds["bare"], strict=True),
                zip(times, seconds["LIME"], strict=True),
            )
        )
        print(
            f"{name:26} {statistics.median(times):7.2f} s   {over:6.3f} x bare   {under:6.3f} x LIME"
        )


if __name__ == "__main__":
    main()
