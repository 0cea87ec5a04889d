"""What people hand over as factories for the command line: `handed_factories:a_softmax_at_its_end`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import seewhy


def command_name(kind: str) -> str:
    """The name of a kind's factory."""
    return re.sub(r"\W+", "_", kind)


def __getattr__(name: str) -> Callable[[], seewhy.Model]:
    from test_handed_over import ZOO, model_of

    kinds = {command_name(kind): kind for kind in ZOO}
    if name not in kinds:
        raise AttributeError(name)
    kind = kinds[name]

    def make() -> seewhy.Model:
        model = seewhy.wrap(model_of(kind))
        return replace(model, preprocess=ZOO[kind].preprocess)

    return make
