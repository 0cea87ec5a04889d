"""What keeps relevance that joins it on its way: class token, registers, position embedding, or the picture itself
where it goes past the layer from which on the rules hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from typing import Literal, get_args

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

JoinedKind = Literal["class_token", "registers", "position_embedding", "past_layer"]
JOINED_KINDS: tuple[JoinedKind, ...] = get_args(JoinedKind)
_WORDS: dict[
    JoinedKind, frozenset[str]
] = {  # in this order: "pos_embed_reg" is a position embedding
    "position_embedding": frozenset({"pos", "position", "positions", "positional"}),
    "registers": frozenset({"reg", "register", "registers"}),
    "class_token": frozenset({"cls", "class", "dist", "distillation"}),
}


def kind_by_name(name: str) -> JoinedKind | None:
    """What a parameter of this dotted name is, as timm, torchvision, transformers and open_clip call theirs."""
    words = set(re.split(r"[._]", name.lower()))
    for kind, usual in _WORDS.items():
        if words & usual:
            return kind
    return None


class JoinedConstants:
    """A module's parameters and buffers, and what is computed of them without the picture."""

    def __init__(self, module: nn.Module) -> None:
        self._own: MutableMapping[Tensor, JoinedKind | None] = WeakIdKeyDictionary()
        for name, weight in module.named_parameters():
            self._own[weight] = kind_by_name(name)
        for name, buffer in module.named_buffers():
            self._own[buffer] = kind_by_name(name)

    def kind(self, x: Tensor) -> JoinedKind | None:
        """What a tensor is that carries no relevance; None for what the module has beside these kinds."""
        return self._own.get(x, "past_layer")

    def follow(self, made: object, values: Iterable[Tensor]) -> None:
        """Notes what was made of values that carry no relevance: a token at its position is that token."""
        kinds = {self.kind(x) for x in values}
        if "past_layer" in kinds or not isinstance(made, Tensor):
            return
        kinds.discard(None)
        if len(kinds) > 1:
            kinds.discard("position_embedding")
        self._own[made] = kinds.pop() if len(kinds) == 1 else None
