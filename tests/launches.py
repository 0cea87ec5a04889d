"""What an accelerator would have to do, counted on any machine: operations launched, and numbers read back.

Each launch costs a processor some microseconds whatever its size, and each read waits for all that was launched before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from seewhy.engine import readings
from seewhy.engine.rules.notes import tensors

# they hand on memory that is there, or ask about types
_WITHOUT_A_KERNEL = frozenset({
    *("view", "_unsafe_view", "detach", "alias", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze"),
    *("select", "slice", "as_strided", "split", "unbind", "lift_fresh", "is_pinned", "promote_types"),
})  # fmt: skip
_READING = frozenset({
    *("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "allclose", "masked_select"),
    *("_unique2", "unique_dim", "unique_consecutive"),
})  # fmt: skip
_INDEXING = (
    "index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
)  # by a mask: how many there are
_TO_THE_HOST = ("tolist", "cpu", "numpy", "__array__")


class _Host:
    """What was copied to the host, where it may be read as often as one likes."""

    def __init__(self) -> None:
        self._copies: dict[int, Tensor] = {}  # held, so that no other tensor takes their memory

    def add(self, copy: object) -> None:
        for x in tensors((copy,)):
            self._copies[x.untyped_storage().data_ptr()] = x

    def has(self, x: object) -> bool:
        return isinstance(x, Tensor) and x.untyped_storage().data_ptr() in self._copies


class _Methods(TorchFunctionMode):
    """Hears of the methods that on a processor dispatch nothing."""

    def __init__(self, heard: Counter[str], host: _Host) -> None:
        super().__init__()
        self._heard, self._host = heard, host

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = getattr(func, "__name__", "")
        reads = name in _TO_THE_HOST and not self._host.has(args[0])
        made = func(*args, **(kwargs or {}))
        if reads:
            self._heard[name] += 1
            self._host.add(made)
        return made


class Launches(TorchDispatchMode):
    """Counts within it.

    Attributes:
        operations: how often each was dispatched, by name.
        reads: how often numbers were read back, by what read them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.reads = Counter[str](), Counter[str]()
        self._host, self._methods = _Host(), ExitStack()

    def __enter__(self) -> Launches:
        self._methods.enter_context(_Methods(self.reads, self._host))
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, tb)
        self._methods.close()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = func._schema.name.rpartition("::")[2]
        given = list(tensors((args, kwargs)))
        if given and all(map(self._host.has, given)):  # done by the host with what it has
            made = func(*args, **(kwargs or {}))
            self._host.add(made)
            return made
        if name in _READING or (name in _INDEXING and _by_a_mask(args[1])):
            self.reads[name] += 1
        else:
            self.operations[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def launched(self) -> int:
        return sum(n for name, n in self.operations.items() if name not in _WITHOUT_A_KERNEL)

    @property
    def uploaded(self) -> int:
        """Tensors made of numbers of the host, each a copy that waits too where it goes to an accelerator."""
        return self.operations["lift_fresh"]

    @property
    def read(self) -> int:
        return self.reads.total()


def _by_a_mask(indices: object) -> bool:
    return isinstance(indices, list | tuple) and any(
        isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices
    )


def counted(run: Callable[[], object]) -> Launches:
    """Counts the second run, made as an accelerator would have it: what is remembered was found in the first."""
    run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readings, "PROMPT", ())
        with Launches() as launches:
            run()
    return launches
