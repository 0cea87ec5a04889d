"""Does LRP run and conserve relevance on every family of image classifiers, and how fast is it, beside its peers?

The table takes the smallest model of each family with random weights and random BatchNorm statistics. For each: the
relevance of the input and of what parameters keep (class tokens, position embeddings) over the score, together and
apart, the rest, the largest relevance over the score, operations without a rule, how far forward values move, and the
time over one forward pass; beside it autoLRP with its z+ composite, if it is installed.

    python benchmarks/relevance.py [--only REGEX] [--torchvision] [--no-peer] [--out TABLE.md]
    python benchmarks/relevance.py --speed [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import importlib
import statistics
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import torchvision
from families import (
    Candidate,
    enliven,
    picture,
    time_limit,
    timm_candidates,
    torchvision_candidates,
)
from torch import Tensor, nn

from seewhy import Trace
from seewhy.engine.rules.composites import conserving
from seewhy.engine.rules.relevance import Relevance
from seewhy.maps.ledger import Ledger

SECONDS, PEER_SECONDS = 120, 30  # of the processor, for one model
TOLERANCE = 0.05
HEAD = [
    *(
        "family",
        "model",
        "status",
        "sum R / f",
        "input alone",
        "kept / f",
        "rest / f",
        "largest R / f",
    ),
    *("without a rule", "forward moved"),
    *("time / forward", "autoLRP", "its sum R / f", "its largest R / f", "its time / forward"),
]


@dataclass
class Row:
    """One line of the table."""

    candidate: Candidate
    status: str = ""
    conserved: float = float("nan")
    at_input: float = float("nan")
    kept: float = float("nan")
    rest: float = float("nan")
    largest: float = float("nan")
    unknown: str = ""
    moved: float = float("nan")
    forwards: float = float("nan")
    peer: str = ""
    peer_sum: float = float("nan")
    peer_largest: float = float("nan")
    peer_forwards: float = float("nan")

    @property
    def conserves(self) -> bool:
        return self.status == "runs" and not self.unknown and abs(self.conserved - 1) <= TOLERANCE

    def cells(self) -> list[str]:
        c = self.candidate
        return [
            *(
                f"{c.library} {c.family}",
                c.name,
                self.status,
                f"{self.conserved:.4f}",
                f"{self.at_input:.4f}",
            ),
            *(
                f"{self.kept:.4f}",
                f"{self.rest:.4f}",
                f"{self.largest:.2g}",
                self.unknown,
                f"{self.moved:.0e}",
                f"{self.forwards:.1f}",
            ),
            *(
                self.peer,
                f"{self.peer_sum:.4g}",
                f"{self.peer_largest:.2g}",
                f"{self.peer_forwards:.1f}",
            ),
        ]


def randomise(module: nn.Module) -> None:
    """Random BatchNorm statistics and weights: the neutral ones of a new model would hide faults."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            n = part.num_features
            part.running_mean.copy_(torch.randn(n, generator=generator) * 0.3)
            part.running_var.copy_(torch.rand(n, generator=generator) + 0.5)
            if part.affine:
                part.weight.data.copy_(torch.rand(n, generator=generator) + 0.5)
                part.bias.data.copy_(torch.randn(n, generator=generator) * 0.2)


def look(candidate: Candidate, *, peer: bool) -> Row:
    """Builds the model and looks at it; what goes wrong is in the row."""
    row = Row(candidate)
    try:
        with time_limit(SECONDS):
            torch.manual_seed(0)
            module = candidate.build().eval()
            enliven(module)
            randomise(module)
            x = picture(candidate.size)
            with torch.no_grad():
                module(x)
                start = time.perf_counter()
                output = module(x)
            seconds = time.perf_counter() - start
            measure(row, module, x, output, seconds)
        row.status = "runs"
    except Exception as error:  # whatever goes wrong is the finding
        row.status = said(error)
        return row
    if peer:
        try:
            with time_limit(PEER_SECONDS):
                measure_peer(row, module, x, seconds)
            row.peer = "runs"
        except Exception as error:
            row.peer = said(error)
    return row


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}".replace("|", "/")


def measure(row: Row, module: nn.Module, x: Tensor, output: Tensor, seconds: float) -> None:
    target = output.argmax(1).tolist()
    ledger = Ledger()
    rules = Relevance(conserving(), ledger=ledger)
    with Trace(module, x, layers=["input"], rules=rules) as trace:
        relevance = x * trace.signal(target)["input"]
        score = float(trace.scores(target))
        moved = (trace.output - output).abs().max() / output.abs().max()
    row.at_input = float(relevance.sum()) / score
    row.kept = ledger.total("parameter") / score
    row.conserved, row.rest = row.at_input + row.kept, 1 - row.at_input - row.kept
    row.largest, row.moved = float(relevance.abs().max()) / abs(score), float(moved)
    row.unknown = ", ".join(rules.unknown)
    start = time.perf_counter()
    to_input(module, x, target, "conserving")
    row.forwards = (time.perf_counter() - start) / seconds


def measure_peer(row: Row, module: nn.Module, x: Tensor, seconds: float) -> None:
    start = time.perf_counter()
    relevance, score = autolrp_to_input(module, x)
    row.peer_forwards = (time.perf_counter() - start) / seconds
    row.peer_sum = float(relevance.sum() / score)
    row.peer_largest = float(relevance.abs().max() / score.abs())


def to_input(module: nn.Module, x: Tensor, target: Any, composite: str) -> Tensor:
    rules = Relevance(composite)
    with Trace(module, x, layers=["input"], rules=rules) as trace:
        return x * trace.signal(target)["input"]


def autolrp_to_input(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """autoLRP's z+ for convolutions, epsilon elsewhere."""
    autolrp = importlib.import_module("autolrp")
    wrapped = autolrp.tensor(x.clone())
    output = module(wrapped)
    score = output.gather(1, output.argmax(1, keepdim=True)).sum()
    score.lrp(config=autolrp.LRPConfig.composite())
    return torch.as_tensor(wrapped.relevance).detach(), torch.as_tensor(score).detach()


def zennit_to_input(module: nn.Module, x: Tensor, target: list[int], canonizer: str) -> Tensor:
    composites, canonizers = (
        importlib.import_module(f"zennit.{name}") for name in ("composites", "torchvision")
    )
    composite = composites.EpsilonPlus(canonizers=[getattr(canonizers, canonizer)()])
    x = x.clone().requires_grad_()
    with composite.context(module) as modified:
        scores = modified(x).gather(1, torch.tensor(target)[:, None])
        (relevance,) = torch.autograd.grad(scores, x, scores.detach())
    return relevance


def speed(rounds: int) -> None:
    """Each round times a forward pass and every contender back to back; printed are medians of the rounds' ratios."""
    for name, canonizer in (("resnet50", "ResNetCanonizer"), ("vgg16", "VGGCanonizer")):
        torch.manual_seed(0)
        module = torchvision.models.get_model(name, weights=None).eval()
        randomise(module)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        x = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            output = module(x)
        target = output.argmax(1).tolist()
        contenders: dict[str, Callable[[], object]] = {
            "seewhy epsilon_plus": lambda m=module, t=target, x=x: to_input(
                m, x, t, "epsilon_plus"
            ),
            "seewhy conserving": lambda m=module, t=target, x=x: to_input(m, x, t, "conserving"),
            "zennit EpsilonPlus": lambda m=module, t=target, x=x, c=canonizer: zennit_to_input(
                m, x, t, c
            ),
            "autoLRP z+": lambda m=module, x=x: autolrp_to_input(m, x),
        }
        if name == "resnet50":
            contenders["seewhy layer3 + layer4"] = lambda m=module, t=target, x=x: at_layers(
                m, x, t, ["layer3", "layer4"]
            )
        compare(name, module, x, contenders, rounds)
        with Trace(module, x, layers=["input"], rules=Relevance("epsilon_plus")) as trace:
            print(f"  forward equal to the last bit: {torch.equal(trace.output, output)}")
        for label in ("seewhy epsilon_plus", "zennit EpsilonPlus"):
            print(
                f"  peak memory, {label}: {peak_megabytes(contenders[label]):.0f} MB above the start"
            )


def at_layers(
    module: nn.Module, x: Tensor, target: list[int], layers: list[str]
) -> dict[str, Tensor]:
    with Trace(module, x, layers=layers, rules=Relevance("epsilon_plus")) as trace:
        signal = trace.signal(target)
        return {layer: trace.activations[layer] * signal[layer] for layer in layers}


def compare(
    title: str,
    module: nn.Module,
    x: Tensor,
    contenders: dict[str, Callable[[], object]],
    rounds: int,
) -> None:
    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    @torch.no_grad()
    def forward() -> Tensor:
        result: Tensor = module(x)
        return result

    ratios: dict[str, list[float]] = {label: [] for label in contenders}
    forwards = []
    for i in range(rounds + 1):
        forwards.append(base := seconds(forward))
        for label, run in contenders.items():
            ratio = seconds(run) / base
            if i:  # the first round warms
                ratios[label].append(ratio)
    print(
        f"\n{title}, batch {len(x)}, {rounds} rounds, forward {1e3 * statistics.median(forwards):.0f} ms"
    )
    for label, found in ratios.items():
        low, median, high = statistics.quantiles(found, n=4)
        print(f"  {label:<24} {median:6.2f}  [{low:.2f}, {high:.2f}]", flush=True)


def peak_megabytes(run: Callable[[], object]) -> float:
    """The process's resident memory at its highest over that at the start."""
    run()
    gc.collect()
    process, done = psutil.Process(), threading.Event()
    start = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    run()
    done.set()
    thread.join()
    return (highest - start) / 1e6


def table(args: argparse.Namespace) -> None:
    rows: list[Row] = []
    sources = (timm_candidates, torchvision_candidates) if args.torchvision else (timm_candidates,)
    for source in sources:
        for candidate in source(args.only):
            if isinstance(candidate, str):
                print("skipped", candidate)
                continue
            rows.append(look(candidate, peer=not args.no_peer))
            gc.collect()
            print(
                "conserves" if rows[-1].conserves else "FAILS",
                " | ".join(rows[-1].cells()),
                flush=True,
            )
    last = f"runs and conserves within {TOLERANCE:.0%}: {sum(row.conserves for row in rows)} of {len(rows)}"
    peer = f"autoLRP: {sum(abs(row.peer_sum - 1) <= TOLERANCE for row in rows)} of {len(rows)}"
    print(peer, last, sep="\n")
    if args.out:
        lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        args.out.write_text(f"{text}\n\n{peer}\n{last}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="families whose 'library family' this expression finds"
    )
    parser.add_argument("--torchvision", action="store_true", help="torchvision's families too")
    parser.add_argument("--no-peer", action="store_true", help="without autoLRP beside")
    parser.add_argument("--out", type=Path, help="write the table as markdown")
    parser.add_argument(
        "--speed", action="store_true", help="times on ResNet-50 and VGG-16 instead of the table"
    )
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(2 if args.speed else 1)
    if args.speed:
        speed(args.rounds)
    else:
        table(args)


if __name__ == "__main__":
    main()
