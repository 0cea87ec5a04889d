"""RISE's masks, drawn independently, in opposite pairs or from scrambled Sobol' sequences."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ...engine.masking.masks import GridMasks
from ...errors import InputError

Scheme = Literal["sobol", "iid", "antithetic"]
PAIR: dict[Scheme, int] = {"sobol": 1, "iid": 1, "antithetic": 2}  # masks that are drawn together


def draw_grids(
    scheme: Scheme, samples: int, *, cells: int, p: float, blocks: int, size: tuple[int, int], seed: int
) -> GridMasks:
    """Draws masks; the first of them are the same however many are asked for.

    Args:
        scheme: "iid": every cell kept with probability p, every shift as likely. "antithetic": after each mask the
            one with the opposite draw. "sobol": as many sequences as `blocks`, each scrambled by itself (Matousek's
            linear scrambling with a digital shift), taken in turns; each mask by itself is distributed as "iid".
        cells: along each edge.
        size: (H, W).
    """
    if scheme not in get_args(Scheme):
        raise InputError(f"masks={scheme!r} is not known; use {', '.join(map(repr, get_args(Scheme)))}")
    numbers = cells * cells + 2
    if scheme == "sobol" and numbers > torch.quasirandom.SobolEngine.MAXDIM:
        raise InputError(f"cells={cells} is too many for Sobol' sequences; use at most 145, or masks='iid'")
    generator = torch.Generator().manual_seed(seed)
    found = GridMasks(
        torch.empty(samples, cells, cells, dtype=torch.bool), torch.empty(samples, 2, dtype=torch.int16), size
    )
    for start in range(blocks if scheme == "sobol" else 1):
        places = slice(start, None, blocks if scheme == "sobol" else 1)
        count = len(range(samples)[places])
        _fill(found, places, _uniform(scheme, count, numbers, generator), p)
    return found


def _uniform(scheme: Scheme, count: int, numbers: int, generator: torch.Generator) -> Tensor:
    """(count, numbers) in [0, 1)."""
    if scheme == "sobol":
        own = int(torch.randint(1 << 62, (), generator=generator))
        engine = torch.quasirandom.SobolEngine(numbers, scramble=True, seed=own)  # type: ignore[no-untyped-call]
        drawn: Tensor = engine.draw(count, dtype=torch.float64)
        drawn[:1] = (engine.shift.double() / 2**engine.MAXBIT).float()  # which torch keeps in its default type
        return drawn
    if scheme == "iid":
        return torch.rand(count, numbers, generator=generator, dtype=torch.float32)
    drawn = torch.rand(-(-count // 2), numbers, generator=generator, dtype=torch.float32).repeat_interleave(2, 0)[
        :count
    ]
    drawn[1::2, :-2] = 1 - drawn[1::2, :-2]  # the shift stays
    return drawn


def _fill(found: GridMasks, places: slice, drawn: Tensor, p: float) -> None:
    cells = found.cells.shape[1]
    pitch = torch.tensor([-(-length // cells) for length in found.size])
    found.cells[places] = (drawn[:, :-2] < p).view(-1, cells, cells)
    found.shifts[places] = (drawn[:, -2:] * pitch).to(torch.int16)
