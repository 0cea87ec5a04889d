"""Small models that are awkward to explain, each of another kind, and for each the usual way of writing the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tiny_models import Called, randomised

Make = Callable[[], nn.Module]


class Stages(nn.Module):
    """Two stages of a convolution and a rectifier, and a linear head on the mean: the usual net."""

    def __init__(
        self, first: Make = nn.ReLU, second: Make | None = None, *, channels: int = 3
    ) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), first())
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), (second or first)())
        self.fc = nn.Linear(8, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).mean((2, 3)))


def stages(first: Make = nn.ReLU, second: Make | None = None) -> nn.Module:
    return randomised(Stages(first, second))


# ---------------------------------------------------------------- where a layer's numbers lie


class Laid(nn.Module):
    """Patches, a layer whose output lies as `lay` puts it, and a head that reads every place by a weight of its own.

    `usual`: the same layer as (N, C, h, w).
    """

    def __init__(
        self,
        lay: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor],
        *,
        grid: tuple[int, int],
        patch: int = 4,
        channels: int = 8,
        usual: bool = False,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, patch, patch)
        self.read = nn.ReLU()
        self.fc = nn.Linear(channels, 5)
        self.lay, self.back, self.usual = lay, back, usual
        self.register_buffer(
            "place", 1 + torch.rand(grid, generator=torch.Generator().manual_seed(7))
        )

    def forward(self, x: Tensor) -> Tensor:
        laid = self.lay(self.patches(x))
        picture = self.read(self.back(laid)) if self.usual else self.back(self.read(laid))
        return self.fc((picture * self.place).mean((2, 3)))


def laid_tokens(
    grid: tuple[int, int],
    *,
    prefix: int = 0,
    first: bool = False,
    order: Sequence[int] = (),
    **options: Any,
) -> tuple[Make, Make]:
    """Tokens behind some that have no place, each beside the mean of all: token i shows cell order[i]."""
    cells = torch.tensor(order or range(math.prod(grid)))
    extra = torch.randn(
        1, prefix, options.get("channels", 8), generator=torch.Generator().manual_seed(5)
    )

    def lay(picture: Tensor) -> Tensor:
        tokens = picture.flatten(2).mT.index_select(1, cells)
        if prefix:
            tokens = torch.cat([extra.expand(len(picture), -1, -1), tokens], 1)
        tokens = tokens + 0.1 * tokens.mean(1, keepdim=True)
        return tokens.transpose(0, 1) if first else tokens

    def back(tokens: Tensor) -> Tensor:
        tokens = tokens.transpose(0, 1) if first else tokens
        return tokens[:, prefix:].index_select(1, cells.argsort()).mT.unflatten(2, grid)

    return laid(lay, back, grid, **options)


def laid(
    lay: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    grid: tuple[int, int],
    **options: Any,
) -> Any:
    return tuple(
        lambda usual=usual: randomised(Laid(lay, back, grid=grid, usual=usual, **options))
        for usual in (0, 1)
    )


def by_units(grid: tuple[int, int], unit: int = 2) -> list[int]:
    """The order of cells unit by unit, as masked autoencoders keep their tokens."""
    h, w = grid
    cells = torch.arange(h * w).view(h // unit, unit, w // unit, unit)
    return cells.permute(0, 2, 1, 3).flatten().tolist()


class Attending(nn.Module):
    """One head of attention over patches, whose weights (N, 1, L, L) are a module's output; the norm before is read."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.read = nn.Conv2d(3, 8, 4, 4), nn.ReLU()
        self.qkv, self.weights, self.fc = nn.Linear(8, 24), nn.Dropout(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        picture = self.read(self.patches(x))
        q, k, v = self.qkv(picture.flatten(2).mT)[:, None].chunk(3, -1)  # (N, 1, L, C)
        attended = self.weights((q @ k.mT / 8**0.5).softmax(-1)) @ v
        return self.fc(attended.mean((1, 2)))


class Queries(nn.Module):
    """Patches, an encoder, and learned queries that look at it: as many as would make a picture too."""

    def __init__(self, *, usual: bool = False) -> None:
        super().__init__()
        self.patches, self.enc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)
        self.queries = nn.Parameter(torch.randn(6, 8))
        self.read, self.dec, self.fc = nn.ReLU(), nn.ReLU(), nn.Linear(8, 5)
        self.usual = usual

    def forward(self, x: Tensor) -> Tensor:
        picture = self.patches(x)
        tokens = self.enc(picture.flatten(2).mT)
        as_picture = tokens.mT.unflatten(2, picture.shape[2:])
        tokens = self.read(as_picture).flatten(2).mT if self.usual else self.read(tokens)
        weights = (self.queries @ tokens.mT / 8**0.5).softmax(-1)
        return self.fc(self.dec(weights @ tokens)).amax(1)


class Boxes(nn.Module):
    """What a detector says before suppression, (N, 4 + K, A), and its feature maps beside."""

    def __init__(self) -> None:
        super().__init__()
        self.n = Stages()
        self.head = nn.Conv2d(8, 4 + 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        found = self.n.features(x)
        return self.head(found).flatten(2), [found]


class Folded(nn.Module):
    """Four views of one picture, run as images of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.n = Stages()

    def forward(self, x: Tensor) -> Tensor:
        return self.n(x.view(-1, 3, *x.shape[2:])).view(len(x), 4, -1).mean(1)


def unequal_strides() -> nn.Module:
    body = [nn.Conv2d(3, 8, 3, (2, 1), 1), nn.ReLU(), nn.Conv2d(8, 8, 3, (2, 1), 1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return randomised(nn.Sequential(nn.Sequential(*body), *head))


# ---------------------------------------------------------------- what rules cannot see


class Swish(torch.autograd.Function):
    """Swish with the way back written by hand, which keeps one tensor instead of two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return g[0] * s * (1 + x * (1 - s))


class Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * (ctx.saved_tensors[0] > 0)


def called(function: Callable[..., Any]) -> Make:
    return lambda: Called(function)


def by_item(x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


def threshold_in_place(x: Tensor) -> Tensor:
    return F.threshold_(x.clone(), 0, 0)


# how it is spelled -> the function, and what it may be called
RECTIFIERS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), "maximum"),
    "where": (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), r"\bwhere"),
    "x * (x > 0)": (lambda x: x * (x > 0), r"\bmul"),
    "masked_fill": (lambda x: x.masked_fill(x < 0, 0), "masked_fill"),
    "item assignment": (by_item, "setitem|index_put|changed in place"),
    "threshold_": (threshold_in_place, "threshold"),
    "aten.relu": (torch.ops.aten.relu, "relu"),
}


def scripted_part() -> nn.Module:
    net = stages()
    net.b = torch.jit.script(net.b)
    return net


def compiled_part() -> nn.Module:
    net = stages()
    net.b = torch.compile(net.b, backend="eager")
    return net


def exported() -> nn.Module:
    free = ({0: torch.export.Dim("n", min=1, max=64)},)
    return torch.export.export(stages(), (torch.randn(2, 3, 16, 24),), dynamic_shapes=free).module()


class Checkpointed(Stages):
    """Its stages are run anew on the way back."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def features(self, x: Tensor) -> Tensor:
        kept = checkpoint(self.a, x, use_reentrant=self.reentrant)
        return checkpoint(self.b, kept, use_reentrant=self.reentrant)


# ---------------------------------------------------------------- no gradient


def quantized(part: type[nn.Module] = nn.Linear) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(stages(), {part}, dtype=torch.qint8)


class Detached(Stages):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).detach().mean((2, 3)))


class DetachedBranch(Stages):
    """The first stage speaks by itself, the second through a cut."""

    def __init__(self, *, cut: bool = True) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        second = self.b(first)
        return self.fc(first.mean((2, 3)) + (second.detach() if self.cut else second).mean((2, 3)))


# ---------------------------------------------------------------- modules called several times


class Siamese(nn.Module):
    """How alike two pictures are to one trunk; `usual`: each has a trunk of its own, of the same weights."""

    def __init__(self, *, usual: bool = False) -> None:
        super().__init__()
        self.trunk = randomised(Stages())
        self.other = copy.deepcopy(self.trunk) if usual else self.trunk

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return F.cosine_similarity(self.trunk(x), self.other(other))[:, None]


class OtherFirst(Siamese):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        said = self.other(other)
        return F.cosine_similarity(self.trunk(x), said)[:, None]


class Repeated(nn.Module):
    """One block called three times; `usual`: three of the same weights."""

    def __init__(self, *, usual: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.fc = nn.Linear(8, 5)
        randomised(self)
        if usual:
            self.block1, self.block2 = copy.deepcopy(self.block), copy.deepcopy(self.block)

    def forward(self, x: Tensor) -> Tensor:
        calls = [
            self.block,
            getattr(self, "block1", self.block),
            getattr(self, "block2", self.block),
        ]
        h = self.stem(x)
        for block in calls:
            h = block(h)
        return self.fc(h.mean((2, 3)))


# ---------------------------------------------------------------- images that depend on each other, and the rest


class BatchStatistics(Stages):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)

    def features(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)))


def batch_statistics() -> nn.Module:
    net = BatchStatistics()
    with torch.no_grad():  # `randomised` fills statistics, of which there are none
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) / 3
            )
    return net.eval()


class WithRows(Stages):
    def __init__(self) -> None:
        super().__init__()
        self.meta = nn.Linear(4, 8)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)) * torch.tanh(self.meta(meta)))


class WithLoss(Stages):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = super().forward(x)
        return logits.logsumexp(1).mean(), logits


def parallel_part() -> nn.Module:
    net = stages()
    net.b = nn.DataParallel(net.b)
    return net
