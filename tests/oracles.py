"""The papers' formulas as slow, obvious float64 loops; nothing here is shared with the package."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def grad_cam(a: Array, g: Array) -> Array:
    """Selvaraju et al. 2017, eq. 1-2, of one image: (C, h, w) twice -> (h, w)."""
    channels, h, w = a.shape
    total = np.zeros((h, w))
    for k in range(channels):
        alpha = sum(g[k, i, j] for i in range(h) for j in range(w)) / (h * w)
        total += alpha * a[k]
    return np.maximum(total, 0)


def grad_cam_pp(a: Array, g: Array) -> Array:
    """Chattopadhay et al. 2018, eq. 5 and 19, without the factor exp(S)."""
    channels, h, w = a.shape
    total = np.zeros((h, w))
    for k in range(channels):
        weight = 0.0
        for i in range(h):
            for j in range(w):
                below = 2 * g[k, i, j] ** 2 + a[k].sum() * g[k, i, j] ** 3
                alpha = g[k, i, j] ** 2 / below if below != 0 else 0.0
                weight += alpha * max(g[k, i, j], 0)
        total += weight * a[k]
    return np.maximum(total, 0)


def xgrad_cam(a: Array, g: Array) -> Array:
    """Fu et al. 2020, eq. 8: each gradient weighs by its share of the channel's activation."""
    channels, h, w = a.shape
    total = np.zeros((h, w))
    for k in range(channels):
        whole = a[k].sum()
        if whole != 0:
            total += sum(a[k, i, j] / whole * g[k, i, j] for i in range(h) for j in range(w)) * a[k]
    return np.maximum(total, 0)


def hires_cam(a: Array, g: Array) -> Array:
    """Draelos and Carin 2020, eq. 2."""
    return sum((a[k] * g[k] for k in range(len(a))), np.zeros(a.shape[1:]))


def layer_cam(a: Array, g: Array) -> Array:
    """Jiang et al. 2021, eq. 5-7."""
    return np.maximum(
        sum((np.maximum(g[k], 0) * a[k] for k in range(len(a))), np.zeros(a.shape[1:])), 0
    )


def elementwise_grad_cam(a: Array, g: Array) -> Array:
    return sum((np.maximum(g[k] * a[k], 0) for k in range(len(a))), np.zeros(a.shape[1:]))


def fem(a: Array, g: Array) -> Array:
    """Fuad et al. 2020: a channel's mean, at its places above its mean by two standard deviations."""
    total = np.zeros(a.shape[1:])
    for channel in a:
        mean = channel.mean()
        spread = np.sqrt(((channel - mean) ** 2).mean())
        total += mean * (channel > mean + 2 * spread)
    return total


def eigen_cam(a: Array, g: Array | None = None) -> Array:
    """Muhammad and Yeasin 2020, eq. 3: a dense SVD; the sign agrees with the channel sum."""
    matrix = a.reshape(len(a), -1).T  # (places, channels)
    _, _, right = np.linalg.svd(matrix, full_matrices=False)
    projected = matrix @ right[0]
    if projected @ matrix.sum(1) < 0:
        projected = -projected
    return projected.reshape(a.shape[1:])


def eigen_grad_cam(a: Array, g: Array) -> Array:
    return eigen_cam(a * g)


CAMS = {
    f.__name__: f
    for f in (
        grad_cam,
        grad_cam_pp,
        xgrad_cam,
        hires_cam,
        layer_cam,
        elementwise_grad_cam,
        fem,
        eigen_cam,
        eigen_grad_cam,
    )
}


def activation_and_gradient(
    module: nn.Module, layer: nn.Module, x: Tensor, target: int
) -> tuple[Tensor, Tensor]:
    """Plain autograd, nothing saved: the layer's output before anything is done to it in place, and its gradient."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: object, value: Tensor) -> Tensor:
        kept.append(value)
        return value.clone()

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            score = module(x.clone().requires_grad_())[:, target].sum()
            (gradient,) = torch.autograd.grad(score, kept[-1])
    finally:
        handle.remove()
    return kept[-1].detach(), gradient


def rectified_back(
    convs: list[nn.Conv2d], fc: nn.Linear, x: Tensor, target: int, rule: str
) -> Tensor:
    """The signal at the input of conv-ReLU-...-conv-ReLU-mean-linear, each step back written out.

    `rule`: "gradient", "guided" (Springenberg et al. 2015) or "deconvnet" (Zeiler and Fergus 2014).
    """
    inputs, before = [], []
    with torch.no_grad():
        for conv in convs:
            inputs.append(x)
            x = conv(x)
            before.append(x)
            x = x.clamp(min=0)
        g = (fc.weight[target] / (x.shape[2] * x.shape[3]))[None, :, None, None].expand_as(x)
        for conv, went_in, z in zip(
            reversed(convs), reversed(inputs), reversed(before), strict=True
        ):
            if rule != "gradient":
                g = g * (g > 0)
            if rule != "deconvnet":
                g = g * (z > 0)
            g = torch.nn.grad.conv2d_input(went_in.shape, conv.weight, g, conv.stride, conv.padding)
    return g


def fullgrad_of_tiny_cnn(net: nn.Module, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """FullGrad of `TinyCNN` (Srinivas and Fleuret 2019, eq. 7) and the sum of all its parts, step by step.

    Returns the map (N, H, W) and the completeness sum (N,).
    """
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        z1 = net.conv1(x)
        y1 = _batch_norm(net.bn1, z1)
        z2 = net.conv2(F.max_pool2d(y1.clamp(min=0), 2))
        y2 = _batch_norm(net.bn2, z2)
        score = net.fc(y2.clamp(min=0).mean((2, 3)))[:, target]
        gradients = torch.autograd.grad(score.sum(), [x, z1, y1, z2, y2])
    fields = [
        x * gradients[0],
        net.conv1.bias.view(-1, 1, 1) * gradients[1],
        _batch_norm_bias(net.bn1) * gradients[2],
        net.conv2.bias.view(-1, 1, 1) * gradients[3],
        _batch_norm_bias(net.bn2) * gradients[4],
    ]
    total = torch.zeros(len(x), *x.shape[2:], dtype=x.dtype)
    for field in fields:
        for n, one in enumerate(field.detach().abs()):
            scaled = (one - one.min()) / (one.max() - one.min())
            total[n] += F.interpolate(
                scaled[None], x.shape[2:], mode="bilinear", align_corners=False
            )[0].sum(0)
    parts = sum(field.detach().flatten(1).sum(1) for field in fields) + net.fc.bias[target].detach()
    return total, parts


def _batch_norm(bn: nn.BatchNorm2d, z: Tensor) -> Tensor:
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    return z * scale.view(-1, 1, 1) + _batch_norm_bias(bn)


def _batch_norm_bias(bn: nn.BatchNorm2d) -> Tensor:
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    return (bn.bias - bn.running_mean * scale).detach().view(-1, 1, 1)


def iou(
    first: tuple[float, float, float, float], second: tuple[float, float, float, float]
) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return shared / (area - shared)


def bilinear(map_: Array, size: tuple[int, int]) -> Array:
    """Upsamples (h, w) on half-pixel centres, edges held."""
    h, w = map_.shape
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = map_[y0, x0] * (1 - (x - x0)) + map_[y0, x1] * (x - x0)
            low = map_[y1, x0] * (1 - (x - x0)) + map_[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + low * (y - y0)
    return out
