"""Runs an address code through a model: what every layer with tokens hears of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import Kind, Layout, axes
from ..outputs import LayerCall
from .addresses import Address, Code, loudness
from .experiment import ROWS, Disturb, Experiment, differs
from .grids import PICTURES, noise_like

_Place = tuple[LayerCall, Kind]
_ONE_OR_TWO = 2  # class tokens that heard of the picture are not yet tokens that lie on it
TOKENS: tuple[Kind, ...] = ("tokens", "tokens_first", "tokens_last")


@dataclass(frozen=True)
class Source:
    """The picture whose cells are changed: a layer's output, or the image itself, and how it lies."""

    layer: LayerCall | None
    layout: Layout


def read_code(
    experiment: Experiment, source: Source, layers: Iterable[LayerCall]
) -> tuple[dict[LayerCall, Layout], set[LayerCall]]:
    """The layouts that an address code over the source's cells finds for layers, and which of them answered to it."""
    code = Code(source.layout.grid)
    energies, heard = _energies(experiment, source, code.masks(), set(layers))
    found: dict[LayerCall, Layout] = {}
    for (key, kind), energy in sorted(energies.items(), key=lambda answer: -loudness(answer[1])):
        if key not in heard or key in found:
            continue
        alike = {
            layout
            for other, layout in found.items()
            if _as_many(energies, (other, layout.kind), energy)
        }
        address = code.read(energy.flatten(1), [Address(a.grid, a.prefix, a.order) for a in alike])
        if address and energy.shape[1:] in (address.grid, energy.shape[1:2]):
            found[key] = Layout(kind, address.grid, address.prefix, address.order)
    return found, heard


def _energies(
    experiment: Experiment, source: Source, passes: Tensor, wanted: Set[LayerCall]
) -> tuple[dict[_Place, Tensor], set[LayerCall]]:
    """How much each place of the wanted layers answers to each pass, (P, ...), and which layers heard of any."""
    energies: dict[_Place, list[Tensor]] = {}
    latest: dict[_Place, Tensor] = {}  # of some passes: these may be run anew, one by one
    heard: set[LayerCall] = set()

    def measure(key: LayerCall, rows: Tensor, row: Tensor) -> None:
        if key not in wanted:
            return
        answered, energy = differs(rows, row), (rows - row).float().square_()
        for kind in _kinds_of_layout(experiment, key):
            latest[key, kind] = energy.sum(_channel_dim(kind, rows.ndim))
            if answered.any(_channel_dim(kind, rows.ndim)).flatten(1).any(0).sum() > _ONE_OR_TWO:
                heard.add(key)

    for masks in torch.split(passes, ROWS):
        x = experiment.x.expand(len(masks), *experiment.x.shape[1:])
        if source.layer is None:
            cells = F.interpolate(
                masks[:, None].float(), size=x.shape[2:], mode="nearest-exact"
            ).to(x.device)
            experiment.compare(torch.where(cells > 0, x + noise_like(x), x), measure)
        else:
            experiment.compare(x, measure, {source.layer: _disturb_cells(masks, source.layout)})
        for place, energy in latest.items():
            energies.setdefault(place, []).append(energy)
        latest.clear()
    whole = {place: torch.cat(parts) for place, parts in energies.items()}
    return {place: energy for place, energy in whole.items() if len(energy) == len(passes)}, heard


def _as_many(energies: Mapping[_Place, Tensor], place: _Place, energy: Tensor) -> bool:
    """Whether a layer that was found has as many tokens."""
    return place in energies and energies[place].shape == energy.shape


def _kinds_of_layout(experiment: Experiment, key: LayerCall) -> list[Kind]:
    """In which ways a layer's dimensions, of which one is that of images, may be places."""
    ndim, batch = experiment.given[key].ndim, experiment.batch_dims[key]
    kinds = PICTURES if ndim == experiment.x.ndim else TOKENS
    return [kind for kind in kinds if axes(kind, ndim)[0] == batch]


def _channel_dim(kind: Kind, ndim: int) -> int:
    """The dimension of channels once rows are first."""
    batch, channels = axes(kind, ndim)[:2]
    return channels + 1 if channels < batch else channels


def _disturb_cells(masks: Tensor, layout: Layout) -> Disturb:
    """Changes in each row the cells (B, *grid) of a picture with channels first or last."""
    cells = masks.unsqueeze(layout.channel_dim)

    def disturb(rows: Tensor) -> Tensor:
        return torch.where(cells.to(rows.device), rows + noise_like(rows), rows)

    return disturb
