"""RISE's masks, drawn independently, in opposite pairs or from scrambled Sobol' sequences."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ...engine.layout import Grid
from ...engine.masking.masks import GridMasks
from ...errors import InputError

Scheme = Literal["sobol", "iid", "antithetic"]
PAIR: dict[Scheme, int] = {"sobol": 1, "iid": 1, "antithetic": 2}  # masks that are drawn together


def draw_grids(
    scheme: Scheme, samples: int, *, cells: int, p: float, blocks: int, size: Grid, seed: int
) -> GridMasks:
    """Draws masks; the first of them are the same however many are asked for.

    Args:
        scheme: "iid": every cell kept with probability p, every shift as likely. "antithetic": after each mask the
            one with the opposite draw. "sobol": as many sequences as `blocks`, each scrambled by itself (Matousek's
            linear scrambling with a digital shift), taken in turns; each mask by itself is distributed as "iid".
        samples: how many.
        cells: along each edge; along the depth of a volume not more than it has slices.
        p: the probability that a cell is kept.
        blocks: how many independent parts the sample has.
        size: (H, W), or (D, H, W).
        seed: of all draws.
    """
    if scheme not in get_args(Scheme):
        raise InputError(
            f"masks={scheme!r} is not known; use {', '.join(map(repr, get_args(Scheme)))}"
        )
    counts = (*(min(cells, depth) for depth in size[:-2]), cells, cells)
    pitches = torch.tensor([-(-side // count) for side, count in zip(size, counts, strict=True)])
    moving = _shifted_axes(pitches)
    numbers = math.prod(counts) + len(moving)
    if scheme == "sobol" and numbers > torch.quasirandom.SobolEngine.MAXDIM:
        most = 145 if len(size) == 2 else 27
        raise InputError(
            f"cells={cells} is too many for Sobol' sequences; use at most {most}, or masks='iid'"
        )
    generator = torch.Generator().manual_seed(seed)
    found = GridMasks(
        torch.empty(samples, *counts, dtype=torch.bool),
        torch.zeros(samples, len(size), dtype=torch.int16),
        size,
    )
    for start in range(blocks if scheme == "sobol" else 1):
        places = slice(start, None, blocks if scheme == "sobol" else 1)
        count = len(range(samples)[places])
        drawn = _uniform_draws(scheme, count, numbers, len(moving), generator)
        kept, shifts = drawn.tensor_split([-len(moving)], 1)
        found.cells[places] = (kept < p).view(-1, *counts)
        found.shifts[places, moving] = (shifts * pitches[moving]).to(torch.int16)
    return found


def _shifted_axes(pitches: Tensor) -> list[int]:
    """A depth that cannot be shifted takes no random number: masks of one slice are those of the picture."""
    return [axis for axis, pitch in enumerate(pitches) if pitch > 1 or axis >= len(pitches) - 2]


def _uniform_draws(
    scheme: Scheme, count: int, numbers: int, shifts: int, generator: torch.Generator
) -> Tensor:
    """(count, numbers) in [0, 1), the last of which are shifts."""
    if not count:  # fewer samples than blocks
        return torch.empty(0, numbers, dtype=torch.float64)
    if scheme == "sobol":
        own = int(torch.randint(1 << 62, (), generator=generator))
        engine = torch.quasirandom.SobolEngine(numbers, scramble=True, seed=own)
        drawn: Tensor = engine.draw(count, dtype=torch.float64)
        drawn[:1] = (
            engine.shift.double() / 2**engine.MAXBIT
        ).float()  # which torch keeps in its default type
        return drawn
    if scheme == "iid":
        return torch.rand(count, numbers, generator=generator, dtype=torch.float32)
    drawn = torch.rand(
        -(-count // 2), numbers, generator=generator, dtype=torch.float32
    ).repeat_interleave(2, 0)[:count]
    drawn[1::2, :-shifts] = 1 - drawn[1::2, :-shifts]  # the shift stays
    return drawn
