"""What an accelerator would have to do, counted on any machine: operations launched, and numbers read back.

Each launch costs a processor some microseconds whatever its size, and each read waits for all that was launched before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


class _Methods(TorchFunctionMode):
    """Hears of the methods that on a processor dispatch nothing."""

    def __init__(self, heard: Counter[str]) -> None:
        super().__init__()
        self._heard = heard

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = getattr(func, "__name__", "")
        if name in _TO_THE_HOST:
            self._heard[name] += 1
        return func(*args, **(kwargs or {}))


class Launches(TorchDispatchMode):
    """Counts within it.

    Attributes:
        operations: how often each was dispatched, by name.
        reads: how often numbers were read back, by what read them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.reads = Counter[str](), Counter[str]()
        self._methods = ExitStack()

    def __enter__(self) -> Launches:
        self._methods.enter_context(_Methods(self.reads))
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
    """Counts the second run: what is remembered of a model was found in the first."""
    run()
    with Launches() as launches:
        run()
    return launches
