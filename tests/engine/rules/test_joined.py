"""What joins a picture's tokens is known by its name, and what is computed of it alone is still that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seewhy.engine.rules.joined import JoinedConstants, kind_by_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cls_token", "class_token"),
        ("vit.embeddings.cls_token", "class_token"),
        ("visual.class_embedding", "class_token"),
        ("class_token", "class_token"),
        ("dist_token", "class_token"),
        ("reg_token", "registers"),
        ("embeddings.register_tokens", "registers"),
        ("pos_embed", "position_embedding"),
        ("encoder.pos_embedding", "position_embedding"),
        ("visual.positional_embedding", "position_embedding"),
        ("embeddings.position_embedding.weight", "position_embedding"),
        ("blocks.0.norm1.weight", None),
        ("head.weight", None),
    ],
)
def test_names_of_the_libraries(name: str, kind: str | None) -> None:
    assert kind_by_name(name) == kind


def test_a_token_at_its_position_is_that_token_and_what_comes_of_the_picture_is_past_the_layer() -> (
    None
):
    net = nn.Module()
    net.cls_token, net.reg_token, net.pos_embed, net.scale = (
        nn.Parameter(torch.randn(4)) for _ in range(4)
    )
    joined = JoinedConstants(net)

    def followed(*values: torch.Tensor) -> str | None:
        made = torch.randn(4)
        joined.follow(made, values)
        return joined.kind(made)

    assert followed(net.cls_token) == "class_token"
    assert followed(net.cls_token, net.pos_embed) == "class_token"
    assert followed(net.reg_token, net.pos_embed, net.scale) == "registers"
    assert followed(net.pos_embed, net.scale) == "position_embedding"
    assert followed(net.cls_token, net.reg_token) is None
    assert followed(net.scale) is None
    assert followed() is None
    picture = torch.randn(4)
    assert joined.kind(picture) == "past_layer"
    assert followed(picture, net.pos_embed) == "past_layer"
