"""Influence by the slowest way: autograd one example at a time, Hessians written out, models trained again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call

from seewhy.influence.problem import Batches, Problem


@cache
def digits(size: int = 8) -> tuple[Tensor, Tensor]:
    """1797 handwritten digits in [0, 1], (n, 1, size, size) float64, and their labels."""
    data = load_digits()
    images = torch.tensor(data.images)[:, None] / 16
    return F.avg_pool2d(images, 8 // size), torch.tensor(data.target)


def batches(images: Tensor, labels: Tensor, size: int = 100) -> Batches:
    return lambda: list(zip(images.split(size), labels.split(size), strict=True))


def softmax_regression(pixels: int = 64, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).double()


def mlp(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, classes)).double()


def cnn(classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    parts = (
        nn.Conv2d(1, 3, 2),
        nn.Tanh(),
        nn.Conv2d(3, 4, 2, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4, classes),
    )
    return nn.Sequential(*parts).double()


def train(net: nn.Module, images: Tensor, labels: Tensor, l2: float) -> nn.Module:
    """To the minimum, by L-BFGS."""
    weights = list(net.parameters())
    for _ in range(20):
        optimiser = torch.optim.LBFGS(
            weights,
            max_iter=100,
            tolerance_grad=1e-9,
            tolerance_change=1e-15,
            line_search_fn="strong_wolfe",
            history_size=50,
        )

        def closure(optimiser: Any = optimiser) -> Tensor:
            optimiser.zero_grad()
            value = F.cross_entropy(net(images), labels) + l2 / 2 * sum(
                w.square().sum() for w in weights
            )
            value.backward()
            return value

        optimiser.step(closure)
        closure()
        if max(float(w.grad.abs().max()) for w in weights) < 1e-8:
            break
    for w in weights:
        w.grad = None
    return net


def problem(net: nn.Module, count: int, l2: float = 0.0, **options: Any) -> Problem:
    return Problem(modules=(net,), count=count, l2=l2, **options)


def slow_gradients(
    net: nn.Module, values: Callable[[Tensor, int], Tensor], images: Tensor, names: Any = None
) -> Tensor:
    """(B, P): one forward and one backward pass for each image, in evaluation mode."""
    modes = {part: part.training for part in net.modules()}
    net.eval()
    weights = {n: p for n, p in net.named_parameters() if names is None or n in names}
    rows = []
    for i, image in enumerate(images):
        live = {n: p.detach().requires_grad_() for n, p in weights.items()}
        output = functional_call(net, live, (image[None],))
        found = torch.autograd.grad(values(output, i), list(live.values()), materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    for part, training in modes.items():
        part.training = training
    return torch.stack(rows)


def losses(labels: Tensor) -> Callable[[Tensor, int], Tensor]:
    return lambda output, i: F.cross_entropy(output, labels[i : i + 1])


def slow_hessian(net: nn.Module, images: Tensor, labels: Tensor, l2: float) -> Tensor:
    """Of the mean cross entropy with l2, (P, P), by differentiating the flat parameters twice."""
    named = dict(net.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def objective(flat: Tensor) -> Tensor:
        parts = zip(named.items(), flat.split(sizes), strict=True)
        weights = {name: part.reshape(p.shape) for (name, p), part in parts}
        return (
            F.cross_entropy(functional_call(net, weights, (images,)), labels)
            + l2 / 2 * flat.square().sum()
        )

    flat = torch.cat([p.detach().flatten() for p in named.values()])
    return torch.autograd.functional.hessian(objective, flat)


def slow_influence(
    net: nn.Module, data: tuple[Tensor, Tensor], tests: tuple[Tensor, Tensor], ridge: float
) -> Tensor:
    """(T, n), with the exact Hessian; the ridge is l2 and damping."""
    train_rows = slow_gradients(net, losses(data[1]), data[0])
    test_rows = slow_gradients(net, losses(tests[1]), tests[0])
    return (
        test_rows @ torch.linalg.solve(slow_hessian(net, *data, ridge), train_rows.T) / len(data[0])
    )


class Newton:
    """Minima of sum_i weights_i loss_i + l2/2 |W|^2 of softmax regression, W (K, F), from that of equal weights."""

    def __init__(self, features: Tensor, labels: Tensor, classes: int, l2: float) -> None:
        self.features, self.target, self.l2 = features, F.one_hot(labels, classes).double(), l2
        self.full = torch.zeros(classes, features.shape[1], dtype=torch.float64)
        equal = torch.full((len(labels),), 1 / len(labels), dtype=torch.float64)
        for _ in range(8):
            self.factor = torch.linalg.cholesky(self._hessian(equal))
            self.full = self.minimum(equal, steps=1)
        self.full = self.minimum(equal)

    def minimum(self, weights: Tensor, steps: int = 60) -> Tensor:
        """Newton's method with the Hessian of equal weights, to a gradient of 1e-11."""
        current = self.full
        for _ in range(steps):
            gradient = self._gradient(current, weights)
            if gradient.norm() < 1e-11:
                return current
            current = current - torch.cholesky_solve(gradient.reshape(-1, 1), self.factor).reshape(
                current.shape
            )
        assert steps == 1, "Newton's method did not converge"
        return current

    def _gradient(self, current: Tensor, weights: Tensor) -> Tensor:
        p = (self.features @ current.T).softmax(1)
        return ((p - self.target) * weights[:, None]).T @ self.features + self.l2 * current

    def _hessian(self, weights: Tensor) -> Tensor:
        k, f = self.full.shape
        p = (self.features @ self.full.T).softmax(1)
        m = (p[:, :, None] * self.features[:, None]).flatten(1)
        hessian = -(m.T * weights) @ m + self.l2 * torch.eye(k * f, dtype=torch.float64)
        for i in range(k):
            block = slice(i * f, (i + 1) * f)
            hessian[block, block] += (self.features.T * (weights * p[:, i])) @ self.features
        return hessian


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1])


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
