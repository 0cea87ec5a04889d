"""The model is borrowed: while it runs it is as it has to be, and afterwards as it was, also when something raised."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

_borrowed: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()
_borrowing = threading.Lock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module in evaluation mode and back, each of its parts as it was; the last of several threads puts it back.

    The flag is set without `Module.eval`, which models override with side effects.
    """
    with _borrowing:
        borrowers, training = _borrowed.get(module, (0, []))
        if not borrowers:
            training = [part for part in module.modules() if getattr(part, "training", False)]
            for part in training:
                part.training = False
        _borrowed[module] = borrowers + 1, training
    try:
        yield
    finally:
        with _borrowing:
            borrowers, training = _borrowed.pop(module)
            if borrowers > 1:
                _borrowed[module] = borrowers - 1, training
            else:
                for part in training:
                    part.training = True


_uncompiled = ExitStack()
_uncompiling = 0


@contextmanager
def uncompiled() -> Iterator[None]:
    """Has parts that `torch.compile` made run as they were written: hooks and rules act on what is called.

    That is torch's setting for all threads; the last of several puts it back.
    """
    global _uncompiling
    with _borrowing:
        # nothing is compiled where that was not loaded
        if not _uncompiling and "torch._dynamo" in sys.modules:
            _uncompiled.enter_context(torch.compiler.set_stance("force_eager"))
        _uncompiling += 1
    try:
        yield
    finally:
        with _borrowing:
            _uncompiling -= 1
            if not _uncompiling:
                _uncompiled.close()
