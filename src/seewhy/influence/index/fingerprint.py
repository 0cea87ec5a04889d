"""What an index was made of, in few bytes: enough to refuse another model, other data, or the same in another order."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...data.disk import Json
from ...engine.keys import digest
from ...errors import InputError
from ...remarks import warn

PROBES = 16  # pictures that are compared by their pixels


def of_modules(modules: Sequence[nn.Module]) -> dict[str, str]:
    """A digest of each weight and statistic of the modules (checkpoints); counters of batches are left out."""
    found: dict[str, str] = {}
    for i, module in enumerate(modules):
        prefix = f"{i}." if len(modules) > 1 else ""
        found |= {prefix + name: digest(tensor) for name, tensor in _watched_values(module).items()}
    return found


def _watched_values(module: nn.Module) -> dict[str, Tensor]:
    each = module.state_dict().items()
    return {
        name: t
        for name, t in each
        if isinstance(t, Tensor) and not name.endswith("num_batches_tracked")
    }


class Watched:
    """Notices modules whose values are no longer those that an index was made of, whatever wrote to them.

    Each check reads all values once, about as fast as memory gives them.

    Args:
        modules: as the index was made of them.
        stored: their digests, see `of_modules`.
        folder: of the index.
    """

    def __init__(
        self, modules: Sequence[nn.Module], stored: Mapping[str, str], folder: object
    ) -> None:
        self._modules = modules
        self._stored = stored
        self._folder = folder
        self._seen = checksums(modules)

    def check(self) -> None:
        """Compares checksums, and digests where these differ, as they do when only the layout in memory changed.

        Raises:
            InputError: the values are others; it names a tensor.
        """
        found = checksums(self._modules)
        if found != self._seen:
            check_model(self._stored, of_modules(self._modules), self._folder)
            self._seen = found


def checksums(modules: Sequence[nn.Module]) -> list[object]:
    """What `of_modules` looks at, in brief: how each tensor lies, and the CRC-32 of its bytes."""
    every = [tensor for module in modules for tensor in _watched_values(module).values()]
    return [
        (t.dtype, t.shape, t.stride(), zlib.crc32(_in_memory(t).cpu().numpy().data)) for t in every
    ]


def _in_memory(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in the order in which they lie, which needs no copy."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return tensor.detach().permute(order).reshape(-1).view(torch.uint8)


def check_model(stored: Mapping[str, str], found: Mapping[str, str], folder: object) -> None:
    """Refuses a model that is not the one of the index.

    Raises:
        InputError: it names what differs.
    """
    differ = [name for name in stored if found.get(name) != stored[name]] + [
        n for n in found if n not in stored
    ]
    if differ:
        named = f"'{differ[0]}'" + (
            f" and {len(differ) - 1} more of its tensors" if len(differ) > 1 else ""
        )
        raise InputError(
            f"model does not fit the index in '{folder}': {named} differ; give the model that it was fit with, or fit "
            "another index"
        )


def of_examples(
    keys: Iterable[tuple[str, int]] | None, count: int, probes: Mapping[int, str]
) -> Json:
    """The fingerprint of a data set, JSON-able.

    Args:
        keys: for each example what tells it apart, and its label; None where that is not known without reading all.
        count: of examples.
        probes: the digests of a few examples, by position.
    """
    lines = None if keys is None else [f"{name}\t{label}" for name, label in keys]
    return {
        "count": count,
        "order": None if lines is None else digest("\n".join(lines)),
        "members": None if lines is None else digest("\n".join(sorted(lines))),
        "probes": {str(position): probe for position, probe in probes.items()},
    }


def probe_positions(count: int) -> list[int]:
    """At most `PROBES` positions, evenly spread, with the first and the last."""
    return sorted({round(i * (count - 1) / max(PROBES - 1, 1)) for i in range(min(PROBES, count))})


def check_data(stored: Json, found: Json, folder: object) -> None:
    """Refuses a data set that is not the one of the index, or comes in another order.

    Raises:
        InputError: it names what differs.
    """
    said = _difference(stored, found)
    if said:
        raise InputError(
            f"data does not fit the index in '{folder}': {said}; give the data it was fit on, or fit another"
        )
    compared = len(stored["probes"])
    if stored["order"] is None and stored["count"] > compared:
        warn(
            f"only {compared} of the {stored['count']} examples were compared with those of the index in '{folder}': "
            "the data set does not tell its labels; give tensors or a TensorDataset to compare all"
        )


def _difference(stored: Json, found: Json) -> str:
    """In what two fingerprints differ, in words; "" where they do not."""
    if stored["count"] != found["count"]:
        return f"it has {found['count']} examples, the index {stored['count']}"
    if stored["order"] != found["order"]:
        same = stored["members"] == found["members"]
        return "its order changed; sort it as it was" if same else "examples or labels differ"
    before, now = stored["probes"], found["probes"]
    changed = [position for position, probe in before.items() if now.get(position) != probe]
    if not changed:
        return ""
    known = set(before.values())
    moved = any(now[position] in known for position in changed)
    what = "its order changed" if moved else "its content or order changed"
    return f"example {changed[0]} differs: {what}"
