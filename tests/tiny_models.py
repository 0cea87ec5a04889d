"""Small networks with random weights whose BatchNorm statistics are random too, and pictures for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

# options with which every method is done in a moment
FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "rise": {"samples": 8, "cells": 3},
    "lime": {"samples": 20, "superpixels": "grid"},
    "occlusion": {"window": 8, "stride": 8},
}


def randomised(module: M, seed: int = 0, *, train: bool = False) -> M:
    """Fills a network with weights of which none is zero, none is one and no statistic is trivial."""
    generator = torch.Generator().manual_seed(seed)

    def fill(tensor: Tensor, mean: float, std: float) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                fill(part.running_mean, 0.0, 0.2)
                part.running_var.copy_(
                    0.5 + torch.rand(part.running_var.shape, generator=generator)
                )
        for parameter in module.parameters():
            if parameter.ndim >= 2:
                fill(parameter, 0.0, (2 / max(parameter[0].numel(), 1)) ** 0.5)
            else:
                norm = parameter.numel() and parameter.detach().float().mean() > 0.5
                fill(parameter, 1.0 if norm else 0.0, 0.2)
    return module.train(train)


def pictures(
    n: int = 2, size: tuple[int, int] | int = 32, *, seed: int = 0, channels: int = 3
) -> Tensor:
    """(N, C, H, W): smooth blobs with some noise, about zero."""
    h, w = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(1000 + seed)
    coarse = torch.randn(n, channels, 4, 4, generator=generator)
    fine = torch.randn(n, channels, h, w, generator=generator)
    return F.interpolate(coarse, (h, w), mode="bicubic") + 0.3 * fine


class TinyCNN(nn.Module):
    """Two convolutions with BatchNorm and in-place ReLU, average pooling, one linear head: CAM's network."""

    def __init__(self, classes: int = 5, *, inplace: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.relu2 = nn.ReLU(inplace=inplace)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(12, classes)

    def stem(self, x: Tensor) -> Tensor:
        return self.pool(self.relu1(self.bn1(self.conv1(x))))

    def forward(self, x: Tensor) -> Any:
        a = self.relu2(self.bn2(self.conv2(self.stem(x))))
        return self.fc(self.drop(a.mean((2, 3))))


class Block(nn.Module):
    """A residual block that uses one in-place ReLU twice, as torchvision's do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class TinyResNet(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.layer1 = Block(8)
        self.down = nn.Conv2d(8, 12, 3, 2, 1)
        self.layer2 = Block(12)
        self.fc = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.down(self.layer1(self.stem(x)))).mean((2, 3)))


class Smooth(nn.Module):
    """No kink anywhere: what integrals of the gradient converge on quickly."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.conv1(0.3 * x).tanh()).tanh().mean((2, 3)))


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class Rectified(nn.Module):
    """Three convolutions with the rectifier that is given, in whatever form it is called."""

    def __init__(
        self, rectify: Callable[[Tensor], Tensor | None] | nn.Module, *, used: bool = True
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1), nn.Conv2d(6, 6, 3, 2, 1)]
        )
        self.fc = nn.Linear(6, 4)
        self.rectify = rectify if isinstance(rectify, nn.Module) else Called(rectify)
        self.used = used

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
            if self.used:
                x = self.rectify(x)
            else:
                self.rectify(x)
        return self.fc(x.mean((2, 3)))


class Returning(nn.Module):
    """TinyCNN whose second stage and whose answer come packed in something."""

    def __init__(
        self,
        pack: Callable[[Tensor], Any],
        unpack: Callable[[Any], Tensor],
        *,
        answer: bool = False,
    ) -> None:
        super().__init__()
        self.net = TinyCNN()
        self.stage = _Stage(self.net, pack)
        self.unpack, self.pack, self.answer = unpack, pack, answer

    def forward(self, x: Tensor) -> Any:
        logits = self.net.fc(self.unpack(self.stage(x)).mean((2, 3)))
        return self.pack(logits) if self.answer else logits


class _Stage(nn.Module):
    def __init__(self, net: TinyCNN, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.pack = net, pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.net.relu2(self.net.bn2(self.net.conv2(self.net.stem(x)))))


def tiny_vit(classes: int = 5, **options: Any) -> nn.Module:
    """timm's VisionTransformer at 32 pixels, three narrow blocks."""
    from timm.models.vision_transformer import VisionTransformer

    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 2,
        "num_classes": classes,
    }
    return randomised(VisionTransformer(**{**settings, **options}))


class ModelState:
    """All that borrowing may not change in a model."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.values = {name: value.clone() for name, value in module.state_dict().items()}
        self.training = [part.training for part in module.modules()]
        self.requires_grad = [p.requires_grad for p in module.parameters()]
        self.grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
        self.hooks = self._hooks()
        self.keys = [sorted(vars(part)) for part in module.modules()]

    def _hooks(self) -> list[int]:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return [len(getattr(part, kind)) for part in self.module.modules() for kind in kinds]

    def assert_unchanged(self) -> None:
        module = self.module
        now = module.state_dict()
        assert list(now) == list(self.values)
        for name, value in now.items():
            torch.testing.assert_close(value, self.values[name], rtol=0, atol=0, equal_nan=True)
        assert [part.training for part in module.modules()] == self.training
        assert [p.requires_grad for p in module.parameters()] == self.requires_grad
        for p, before in zip(module.parameters(), self.grads, strict=True):
            assert (p.grad is None) == (before is None)
            assert before is None or torch.equal(p.grad, before)
        assert self._hooks() == self.hooks
        assert [sorted(vars(part)) for part in module.modules()] == self.keys
        assert torch.overrides._get_current_function_mode_stack() == []


def offloaded(module: nn.Module) -> nn.Module:
    """The module with its weights on the meta device, which hooks bring for each call of a part, as accelerate's do."""
    for part in module.modules():
        own = dict(part._parameters)
        away = {
            name: None if p is None else nn.Parameter(p.detach().to("meta"))
            for name, p in own.items()
        }
        if own:
            part.register_forward_pre_hook(lambda p, args, own=own: p._parameters.update(own))
            part.register_forward_hook(lambda p, args, said, away=away: p._parameters.update(away))
            part._parameters.update(away)
    return module
