"""Parts that are run anew on the way back obey the rules as others do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from seewhy.errors import SeewhyError, SeewhyWarning
from seewhy.methods.catalog import METHODS
from tiny_models import pictures, randomised, tiny_vit


def densenet() -> nn.Module:
    return timm.models.DenseNet(growth_rate=4, block_config=(2, 2), num_classes=5)


def convnext() -> nn.Module:
    return timm.models.ConvNeXt(num_classes=5, depths=(1, 1, 1, 1), dims=(4, 8, 12, 16))


# the network, and a layer between parts that are run anew
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ViT": (lambda: tiny_vit(img_size=32), "blocks.1.norm1"),
    "DenseNet": (densenet, "features.norm5"),
    "ConvNeXt": (convnext, "stages.2"),
}
METHODS_TRIED = (
    "grad_cam",
    "guided_backprop",
    "saliency",
    "lrp",
    "clrp",
    "layer_relevance",
    "relevance_cam",
)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "method",
    [
        "grad_cam",
        "guided_backprop",
        "deconvnet",
        "saliency",
        "lrp",
        "clrp",
        "layer_relevance",
        "relevance_cam",
    ],
)
def test_maps_are_those_without_checkpoints(network: str, method: str) -> None:
    make, layer = NETWORKS[network]
    net, x = randomised(make()), pictures(2)
    at = {"layer": layer} if METHODS[method].at == "layer" else {}
    expected = METHODS[method](net, x, 1, **at)
    net.set_grad_checkpointing(True)
    try:
        found = METHODS[method](net, x, 1, **at)
    except (SeewhyError, SeewhyWarning) as error:  # older versions of timm
        if "re-entrant" not in str(error):
            raise
        pytest.skip("checkpoints re-entrantly")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
