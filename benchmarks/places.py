"""Does each layer's layout lie over the picture as it should? The smallest model of each family, the slow way.

For every layer that seewhy reads: each cell of the layer's grid is hidden in the picture in turn (replaced by noise),
the layer is laid out as was found, and the place that changes most, against what it usually does, has to be the hidden
cell. The oracle knows nothing of how layouts are found. Nets whose tokens lie in a planted order have an exact truth.

    python benchmarks/places.py [--only REGEX] [--sizes 3] [--cells 25] [--seconds 300] [--results FILE] [--out FILE]
        [--part K/N] [--device cuda]

With `--results` each model's lines are kept in a file as they are done, and a later run goes on behind them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from pathlib import Path

import torch
import transformers
from families import (
    CLASSES,
    Candidate,
    enliven,
    picture,
    settle,
    time_limit,
    timm_candidates,
    torchvision_candidates,
    transformers_candidates,
)
from torch import Tensor, nn

import seewhy
from seewhy.engine.answers import main_output
from seewhy.engine.layers import LayerRecord

BATCH, NUMBERS = 8, 2**27  # pictures at once, and numbers of all layers that stand in memory
NEAR = 0.8  # of the cells answer where they are hidden or beside, or their places are in order by so much
MOST_TOKENS = 64  # a batch of as many images as tokens is tried up to here
HEAD = [
    *(
        "library",
        "family",
        "model",
        "size",
        "layers",
        "right",
        "worst layer",
        "share",
        "order",
        "batches",
        "passes",
    ),
    *("seconds", "note"),
]


@dataclass
class Line:
    """What came out for one model at one size.

    Attributes:
        read, right: how many layers are read, and how many of those that answer at all lie right.
        worst, share, order: the worst layer; the share of its cells that answer in place or beside; how far the places
            that answer are in the order of those hidden (Spearman, the lower of rows and columns).
        batches: whether two images, and as many as the layer has tokens, are laid out as one is.
        passes: pictures that were run to find the layouts.
    """

    library: str
    family: str
    model: str
    size: str
    read: int = 0
    answered: int = 0
    right: int = 0
    worst: str = ""
    share: float = 1.0
    order: float = 1.0
    batches: str = ""
    passes: int = 0
    seconds: float = 0.0
    note: str = ""
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return (
            self.answered > 0
            and self.right == self.answered
            and "WRONG" not in self.batches + self.note
        )

    def cells(self) -> list[str]:
        return [
            *(
                self.library,
                self.family,
                self.model,
                self.size,
                str(self.read),
                f"{self.right} of {self.answered}",
            ),
            *(self.worst, f"{self.share:.2f}", f"{self.order:.2f}", self.batches, str(self.passes)),
            *(f"{self.seconds:.0f}", self.note),
        ]


# ---------------------------------------------------------------- the oracle


def hidden_cells(grid: tuple[int, int], most: int) -> list[tuple[int, int]]:
    """All cells of a grid, or of a fine one random squares of four, so that neighbours are told apart too."""
    h, w = grid
    if h * w <= most:
        return [(i, j) for i in range(h) for j in range(w)]
    generator = torch.Generator().manual_seed(0)
    found: dict[tuple[int, int], None] = {}
    while len(found) + 4 <= most:
        i, j = (int(torch.randint(max(n - 1, 1), (), generator=generator)) for n in grid)
        found |= {(y, x): None for y in (i, i + 1) for x in (j, j + 1) if y < h and x < w}
    return list(found)


def without(
    x: Tensor, grid: tuple[int, int], cells: list[tuple[int, int]], noise: Tensor
) -> Tensor:
    """(len(cells), C, H, W): the picture with one cell of noise each."""
    (h, w), (height, width) = grid, x.shape[2:]
    out = x.repeat(len(cells), 1, 1, 1)
    for one, (i, j) in zip(out, cells, strict=True):
        rows = slice(i * height // h, max((i + 1) * height // h, i * height // h + 1))
        columns = slice(j * width // w, max((j + 1) * width // w, j * width // w + 1))
        one[:, rows, columns] = noise[0, :, rows, columns]
    return out


def laid_out(module: nn.Module, x: Tensor, records: list[LayerRecord]) -> list[Tensor]:
    """Each layer as its layout says, (N, C, h, w)."""
    with seewhy.Trace(module, x, layers=[r.name for r in records], grad=False) as trace:
        return [r.layout.to_grid(trace.activations[r.name]) for r in records if r.layout]


def answers(
    module: nn.Module,
    x: Tensor,
    records: list[LayerRecord],
    cells: list[tuple[int, int]],
    seed: int,
) -> list[Tensor]:
    """For each layer (cells hidden, cells looked at): how much the latter changes against what it usually does."""
    grid = records[0].layout.grid if records[0].layout else (0, 0)
    noise = picture((x.shape[2], x.shape[3]), seed=seed).to(x) * 3
    at = torch.tensor([i * grid[1] + j for i, j in cells])
    before = laid_out(module, x, records)
    changes: list[list[Tensor]] = [[] for _ in records]
    for start in range(0, len(cells), BATCH):
        after = laid_out(module, without(x, grid, cells[start : start + BATCH], noise), records)
        for change, one, other in zip(changes, after, before, strict=True):
            change.append((one - other).abs().mean(1).flatten(1)[:, at].cpu())
    found = [torch.cat(change) for change in changes]
    return [
        change / change.mean(0).clamp(min=1e-12 * float(change.max()) + 1e-300) for change in found
    ]


def verdict(found: list[Tensor], cells: list[tuple[int, int]]) -> tuple[float, float] | None:
    """The share of cells that answer in place (or beside, in grids of more than 4), and how far they are in order.

    None where nothing answers, or another to each noise that hides the same cell.
    """
    answer, places = found[0], [each.argmax(1) for each in found]
    heard = answer.amax(1) > 1.0  # a cell that nobody hears, or all alike, tells nothing
    for place in places[1:]:
        heard &= place == places[0]
    if heard.sum() < max(2, len(cells) // 4):
        return None
    true = torch.tensor(cells)[heard]
    said = torch.tensor(cells)[places[0][heard]]
    beside = int(min(max(cell) for cell in zip(*cells, strict=True)) >= 4)
    share = ((true - said).abs().amax(1) <= beside).double().mean()
    order = min(spearman(true[:, axis], said[:, axis]) for axis in (0, 1))
    return float(share), order


def spearman(a: Tensor, b: Tensor) -> float:
    if a.min() == a.max():  # one row, or one column
        return 1.0
    ranks = torch.stack(
        [(v[:, None] > v).double().sum(1) + (v[:, None] == v).double().sum(1) / 2 for v in (a, b)]
    )
    return float(torch.corrcoef(ranks)[0, 1].nan_to_num())


# ---------------------------------------------------------------- a model at a size


def look(line: Line, module: nn.Module, x: Tensor, most: int) -> None:
    """Fills in a line."""
    runs: list[int] = []
    handle = module.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    flow = seewhy.list_layers(module, x)
    records = [r for r in flow.records if r.layout]
    handle.remove()
    line.passes, line.read = sum(runs), len(records)
    line.batches = batches(module, x, next(r for r in records if r.name == flow.default))
    copy = deepcopy(
        module.train()
    ).eval()  # train() empties the caches of tensors that some models keep
    unsure = []
    for record, found in verdicts(copy, x, records, most):
        if found is None or max(found) < NEAR:
            unsure.append(record)
        else:
            judge(line, record, found)
    # rounding may hide an answer, few cells may miss the order, and one noise may wake a place by chance
    for record, found in verdicts(copy.double(), x.double(), unsure, 2 * most, noises=2):
        judge(line, record, found)


def verdicts(
    module: nn.Module, x: Tensor, records: list[LayerRecord], most: int, noises: int = 1
) -> Iterator[tuple[LayerRecord, tuple[float, float] | None]]:
    """Each layer with what comes out for it, those of one grid together."""
    records = sorted(records, key=grid_of)
    for grid, group in groupby(records, key=grid_of):
        alike, cells = list(group), hidden_cells(grid, most)
        for part in parts(alike):
            found = [answers(module, x, part, cells, seed) for seed in range(1, noises + 1)]
            for record, *each in zip(part, *found, strict=True):
                yield record, verdict(each, cells)


def grid_of(record: LayerRecord) -> tuple[int, ...]:
    return record.layout.grid if record.layout else ()


def parts(records: list[LayerRecord]) -> Iterator[list[LayerRecord]]:
    """The layers in parts whose outputs can stand in memory together."""
    part: list[LayerRecord] = []
    held = 0
    for record in records:
        size = BATCH * math.prod(record.shape[1:])
        if part and held + size > NUMBERS:
            yield part
            part, held = [], 0
        part, held = [*part, record], held + size
    if part:
        yield part


def judge(line: Line, record: LayerRecord, found: tuple[float, float] | None) -> None:
    if found is None:
        return
    line.answered += 1
    good = max(found) >= NEAR
    line.right += good
    if not good:
        line.wrong.append(
            f"{record.name or 'the model'} {record.layout} {found[0]:.2f} {found[1]:.2f}"
        )
    if max(found) < max(line.share, line.order) or not line.worst:
        line.worst, (line.share, line.order) = record.name or "the model", found


def batches(module: nn.Module, x: Tensor, record: LayerRecord) -> str:
    """Whether several images are laid out as one is, by a model that remembers nothing."""
    length = max(record.shape[:2]) if len(record.shape) == 3 else 0
    alone = laid_out(module, x, [record])[0]
    wrong = []
    for n in (2, length) if 2 < length <= MOST_TOKENS else (2,):
        many = torch.cat(
            [x, picture((x.shape[2], x.shape[3]), seed=2).to(x).expand(n - 1, -1, -1, -1)]
        )
        copy = deepcopy(module)
        again = next(
            (r for r in seewhy.list_layers(copy, many).records if r.name == record.name), None
        )
        same = again is not None and again.layout == record.layout
        same = same and torch.allclose(
            laid_out(copy, many, [record])[0][:1], alone, rtol=1e-2, atol=1e-3
        )
        wrong += [] if same else [n]
    return (
        f"WRONG {wrong}" if wrong else "ok" + (f", {length}" if 2 < length <= MOST_TOKENS else "")
    )


def sizes_of(candidate: Candidate, count: int) -> list[tuple[int, int]]:
    """Its own size, then one that is wide or high, and one that is no multiple of the patch."""
    h, w = candidate.size
    return [(h, w), (h, w * 5 // 7 // 32 * 32), (h * 6 // 7 // 4 * 4 + 4, w)][:count]


def module_for(candidate: Candidate, size: tuple[int, int]) -> nn.Module | None:
    """The model as it is if it takes that size, else built for it; None where it takes no other than its own."""
    for built_for in ((), size) if size != candidate.size else ((),):
        torch.manual_seed(0)
        try:
            module = candidate.build(*built_for).eval()
            with torch.no_grad():
                assert main_output(module(picture(size))).shape == (1, CLASSES)
        except Exception:  # whatever a model says of a size it does not take
            continue
        return module
    return None


def check(
    candidate: Candidate, size: tuple[int, int], most: int, seconds: int, device: str
) -> Line:
    """Looks at a model; with random BatchNorm once more where not all is right."""
    line, start = empty(candidate, size), time.perf_counter()
    try:
        with time_limit(seconds):
            module = module_for(candidate, size)
            if module is None:
                line.note = "fixed size"
                return line
            line.note = enliven(module.to(device))
            x = picture(size).to(device)
            look(line, module, x, most)
            silent = not line.good or line.answered < NEAR * line.read
            if silent and any(
                isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()
            ):
                settle(module, x)
                again = empty(candidate, size)
                look(again, module, x, most)
                line = again if (again.good, again.right) > (line.good, line.right) else line
                line.note += "BatchNorm of noise;" if line is again else ""
    except Exception as error:
        line.note += f" WRONG {type(error).__name__}: {str(error).splitlines()[0][:140] if str(error) else ''}"
    line.seconds = time.perf_counter() - start
    return line


def empty(candidate: Candidate, size: tuple[int, int]) -> Line:
    return Line(candidate.library, candidate.family, candidate.name, "x".join(map(str, size)))


# ---------------------------------------------------------------- planted orders


class Planted(nn.Module):
    """Patches as tokens in an order of one's own, a block of attention, and a head on their mean."""

    def __init__(
        self, grid: tuple[int, int], order: list[int], prefix: int, *, first: bool
    ) -> None:
        super().__init__()
        self.grid, self.prefix, self.first = grid, prefix, first
        self.register_buffer("order", torch.tensor(order))
        self.patches, self.read = nn.Conv2d(3, 24, 8, 8), nn.LayerNorm(24)
        self.extra = nn.Parameter(torch.randn(1, prefix, 24))
        self.block = nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=not first)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT[:, self.order]
        tokens = torch.cat([self.extra.expand(len(x), -1, -1), tokens], 1)
        tokens = self.read(tokens.transpose(0, 1) if self.first else tokens)
        return self.head(self.block(tokens).mean(0 if self.first else 1))

    def truth(self, x: Tensor) -> Tensor:
        """What `read` gives, as a picture."""
        return self.read(self.patches(x).flatten(2).mT).mT.unflatten(2, self.grid)


def planted(seed: int) -> tuple[Planted, Tensor]:
    """A grid, an order, some tokens before and a batch, all drawn."""
    generator = torch.Generator().manual_seed(seed)
    h, w, prefix = (
        int(torch.randint(*span, (), generator=generator)) for span in ((3, 9), (3, 9), (0, 6))
    )
    order = torch.randperm(h * w, generator=generator).tolist()
    torch.manual_seed(seed)
    net = Planted((h, w), order, prefix, first=bool(seed % 2)).eval()
    n = (1, 2, h * w + prefix)[seed % 3]
    ragged = torch.randint(
        8, (2,), generator=generator
    ).tolist()  # sizes that are no multiple of the patch
    return net, torch.randn(n, 3, 8 * h + ragged[0], 8 * w + ragged[1], generator=generator)


def check_planted(count: int) -> list[Line]:
    lines = []
    for seed in range(count):
        net, x = planted(seed)
        order = "first" if net.first else "second"
        size = "x".join(map(str, x.shape))
        line = Line(
            "planted", "planted", f"{net.grid}, {net.prefix} before, {order} axis", size, 1, 1
        )
        try:
            record = next(r for r in seewhy.list_layers(net, x).records if r.name == "read")
            line.right = int(
                bool(record.layout)
                and torch.equal(laid_out(net, x, [record])[0], net.truth(x).detach())
            )
        except Exception as error:
            line.note = f"WRONG {type(error).__name__}: {str(error)[:140]}"
        lines.append(line)
    return lines


# ---------------------------------------------------------------- all


def candidates(only: str, part: str) -> Iterator[Candidate]:
    """One of each family; of these every N-th, from the K-th on."""
    sources = (timm_candidates, torchvision_candidates, transformers_candidates)
    found = (c for source in sources for c in source(only) if isinstance(c, Candidate))
    first, step = (int(number) for number in part.split("/"))
    return islice(found, first, None, step)


def done_before(path: Path | None) -> list[Line]:
    return (
        [Line(**json.loads(text)) for text in path.read_text().splitlines()]
        if path and path.exists()
        else []
    )


def summary(lines: list[Line]) -> str:
    """How many families are right at every size they take, and how many layers."""
    taken = [line for line in lines if line.note != "fixed size"]
    families = {(line.library, line.family): True for line in taken}
    for line in taken:
        families[line.library, line.family] &= line.good
    layers = sum(line.answered for line in taken)
    right = sum(line.right for line in taken)
    of_families = f"right {sum(families.values())} of {len(families)} families"
    return f"{of_families}; {right} of {layers} layers at {len(taken)} sizes"


def markdown(lines: list[Line]) -> str:
    rows = [HEAD, ["---"] * len(HEAD), *(line.cells() for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="families whose 'library family' this expression finds"
    )
    parser.add_argument(
        "--sizes", type=int, default=3, choices=(1, 2, 3), help="how many sizes of each model"
    )
    parser.add_argument(
        "--cells",
        type=int,
        default=25,
        help="cells hidden in each grid; twice as many where they do not agree",
    )
    parser.add_argument(
        "--seconds", type=int, default=300, help="of the processor, for one model at one size"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no model after so many"
    )
    parser.add_argument("--planted", type=int, default=24, help="nets of planted orders")
    parser.add_argument(
        "--results", type=Path, help="keep each line here, and go on behind those that are there"
    )
    parser.add_argument("--out", type=Path, help="write the table as markdown")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--part", default="0/1", help="K/N: of all families every N-th, from the K-th on"
    )
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    started, lines = time.monotonic(), done_before(args.results)
    known = {(line.library, line.family, line.size) for line in lines}
    if re.search(args.only, "planted planted"):
        lines = [line for line in lines if line.library != "planted"] + check_planted(args.planted)
        show([line for line in lines if line.library == "planted"])
    for candidate in candidates(args.only, args.part):
        for size in sizes_of(candidate, args.sizes):
            key = (candidate.library, candidate.family, "x".join(map(str, size)))
            if key in known or time.monotonic() - started > 60 * args.minutes:
                continue
            lines.append(check(candidate, size, args.cells, args.seconds, args.device))
            show(lines[-1:])
            if args.results:
                with args.results.open("a") as file:
                    file.write(json.dumps(asdict(lines[-1])) + "\n")
    print(summary(lines))
    if args.out:
        args.out.write_text(f"{markdown(lines)}\n\n{summary(lines)}\n")


def show(lines: list[Line]) -> None:
    for line in lines:
        verdict_of = "right" if line.good else "fixed" if line.note == "fixed size" else "WRONG"
        print(f"{verdict_of} {' | '.join(line.cells())}", *line.wrong[:4], sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
