"""Gradients shatter, relevance does not: how alike neighbouring places are, layer by layer.

The first argument of Relevance-CAM (Lee et al., CVPR 2021): going back through a network, gradients of neighbouring
places become unrelated, like white noise (Balduzzi et al., ICML 2017). Shown here is the correlation of each place with
its right neighbour for what the place contributes to the top class, summed over channels: by gradient x activation, and
by relevance.

    python examples/shattered_gradients.py [OUT.png]
"""

from __future__ import annotations

import sys

import matplotlib
import skimage.data
import torch
from torch import Tensor

import seewhy
from seewhy.data.images import read_image
from seewhy.engine.rules.relevance import Relevance

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def neighbour_correlation(field: Tensor) -> float:
    """Mean over images of the correlation between a place and its right neighbour: (N, h, w) -> number."""
    left, right = field[..., :-1].flatten(1), field[..., 1:].flatten(1)
    return float(
        torch.cosine_similarity(
            left - left.mean(1, keepdim=True), right - right.mean(1, keepdim=True)
        ).mean()
    )


def main() -> None:
    model = seewhy.load_model()
    photos = [
        read_image(picture)
        for picture in (skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket())
    ]
    x, _ = model.preprocess.batch(photos)
    layers = ["input", *seewhy.list_layers(model).chosen]
    curves = {}
    for name, rules in (
        ("gradient", None),
        ("relevance", Relevance("epsilon_gamma")),
    ):
        with seewhy.Trace(model.module, x, layers=layers, rules=rules) as trace:
            signal = trace.signal(trace.output.argmax(1))
            places = [(trace.activations[layer] * signal[layer]).sum(1) for layer in layers]
        curves[name] = [neighbour_correlation(field) for field in places]
        print(
            f"{name:10s}",
            "  ".join(
                f"{layer} {value:.2f}" for layer, value in zip(layers, curves[name], strict=True)
            ),
        )

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, colour in (("relevance", "tab:red"), ("gradient", "tab:blue")):
        axes.plot(layers, curves[name], "o-", color=colour, label=name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(
        ylabel="correlation with the neighbour",
        xlabel="layer, from the input to the output",
        ylim=(-0.3, 1.0),
    )
    axes.set_title("Gradients shatter on their way back, relevance does not", loc="left")
    axes.legend(frameon=False)
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "shattered_gradients.png", dpi=110)


if __name__ == "__main__":
    main()
