"""What an image takes from any other of its batch is seen by exchanging these; what is drawn or rounded is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.black_box import BlackBox
from seewhy.engine.call import Call
from seewhy.engine.exchange import CODES, exchanged_in_passes, neighbors_matter
from tiny_models import pictures

SIZE = 6
Take = Callable[[Tensor], Any]


class Scores(nn.Module):
    """Five numbers of each image, (N, 5), and what is made of them."""

    def __init__(self, take: Take) -> None:
        super().__init__()
        self.fc, self.take = nn.Linear(3 * SIZE * SIZE, 5), take
        with torch.no_grad():
            self.fc.weight.copy_(
                torch.randn(self.fc.weight.shape, generator=torch.Generator().manual_seed(1))
            )
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Any:
        self.seen.append(len(x))
        return self.take(self.fc(x.flatten(1).float()).relu())


def matters(take: Take, x: Tensor) -> bool:
    call = Call(Scores(take).eval())
    return neighbors_matter(call, x, call.answer(x))


def last_takes(value: Take) -> Take:
    return lambda a: torch.cat([a[:-1], a[-1:] + value(a)])


def of_another(image: int, other: int) -> Take:
    """One image alone takes something, from another alone."""

    def take(a: Tensor) -> Tensor:
        return torch.stack(
            [row + a[other] / 100 if i == image and len(a) > 1 else row for i, row in enumerate(a)]
        )

    return take


def in_groups(a: Tensor) -> Tensor:
    """As a discriminator's spread over four images that lie far apart."""
    size = 4 if len(a) % 4 == 0 else len(a)
    spread = a.view(size, -1, 5).std(0, correction=0)
    return a + spread.repeat(size, 1)


TAKEN: dict[str, Take] = {
    "mean": lambda a: a - a.mean(0),
    "most": lambda a: a / a.max(),
    "least norm": lambda a: a + a.norm(dim=1).min(),
    "order": lambda a: a * (1 + a.sum(1).argsort().argsort())[:, None],
    "sorted": lambda a: a.sort(0).values,
    "next": lambda a: a + a.roll(1, 0),
    "groups": in_groups,
    "last of mean": last_takes(lambda a: a[:-1].mean(0)),
    "last of most": last_takes(lambda a: a.max()),
    "last of first": last_takes(lambda a: a[0]),
    "first of last": lambda a: torch.cat([a[:1] + a[-1:], a[1:]]),
    "scalar beside": lambda a: {"boxes": a, "b": a.mean()},
    "rows cut": lambda a: [{"boxes": row[row < a.mean()]} for row in a],
}


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8, 15, 16])
@pytest.mark.parametrize("way", TAKEN)
def test_whatever_is_taken_over_a_batch_is_seen(way: str, n: int) -> None:
    assert matters(TAKEN[way], pictures(n, SIZE))


@pytest.mark.parametrize("n", [3, 5, 8])
@pytest.mark.parametrize("way", ["mean", "most", "order", "last of mean", "last of most"])
def test_equal_and_nearly_equal_images_tell_as_much(way: str, n: int) -> None:
    alike = pictures(1, SIZE).expand(n, -1, -1, -1)
    assert matters(TAKEN[way], alike)
    assert matters(TAKEN[way], alike + 1e-4 * pictures(n, SIZE, seed=2))
    assert matters(TAKEN[way], torch.zeros_like(alike))


@pytest.mark.parametrize("n", range(2, len(CODES) + 1))
def test_any_image_that_takes_from_any_other_alone_is_seen(n: int) -> None:
    x = pictures(n, SIZE)
    assert all(matters(of_another(i, j), x) for i in range(n) for j in range(n) if i != j)


@pytest.mark.parametrize("n", [8, 9, 14, 15, 16, 28, 32, 64])
def test_of_more_images_those_of_one_code_lie_apart(n: int) -> None:
    passes = exchanged_in_passes(n)
    codes = passes.T.tolist()
    assert passes.shape == (3, n)
    assert all(any(code) for code in codes)
    step = next(d for d in range(1, n) if any(codes[i] == codes[i + d] for i in range(n - d)))
    assert step >= len(CODES) - 1
    assert codes[0] != codes[-1]
    assert n % 2 or all(codes[i] != codes[i + n // 2] for i in range(n // 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("n", [2, 8])
def test_types(n: int, dtype: torch.dtype) -> None:
    x = (100 * pictures(n, SIZE).abs()).to(dtype)
    assert matters(TAKEN["mean"], x)
    assert not matters(lambda a: a.softmax(1), x)


@pytest.mark.parametrize("n", [2, 3, 8, 16])
def test_images_by_themselves(n: int) -> None:
    x = pictures(n, SIZE)
    noise = torch.Generator().manual_seed(0)
    alone: list[Take] = [
        lambda a: a,
        lambda a: a / a.amax(1, keepdim=True),
        lambda a: {"a": a, "scale": torch.tensor(3.0), "name": "x"},
        lambda a: a.log(),  # infinities
        lambda a: (a - a) / (a - a),  # no numbers at all
        lambda a: a + torch.randn(a.shape),
        lambda a: a + torch.randn(a.shape, generator=noise),
        lambda a: a * (1 + 3e-5 * torch.randn(a.shape, generator=noise)),
        lambda a: a.argmax(1),
    ]
    assert [matters(take, x) for take in alone] == [False] * len(alone)


def test_beside_a_little_noise_it_is_seen() -> None:
    noise = torch.Generator().manual_seed(0)
    assert matters(
        lambda a: (a - a.mean(0)) * (1 + 1e-5 * torch.randn(a.shape, generator=noise)),
        pictures(4, SIZE),
    )


def test_a_quiet_image_is_among_what_is_exchanged_for() -> None:
    assert matters(lambda a: a + (a.norm(dim=1) < 3).sum(), 9 + pictures(8, SIZE))


def test_only_from_some_size_on() -> None:
    def take(a: Tensor) -> Tensor:
        return a - a.mean(0) if len(a) > 2 else a

    assert not matters(take, pictures(2, SIZE))
    assert matters(take, pictures(3, SIZE))


def test_a_model_that_takes_no_other_numbers_or_no_other_size() -> None:
    seen: list[float] = []

    def dim(x: Tensor) -> Tensor:
        seen.append(float(x.max()))
        assert x.min() >= 0
        assert x.max() <= 1
        return x.mean((2, 3)) - x.mean()

    x = pictures(4, SIZE).sigmoid()
    for model in (BlackBox(dim), BlackBox(lambda a: a.mean((1, 2)) - a.mean(), takes="pictures")):
        assert neighbors_matter(Call(model), x, Call(model).answer(x))
    assert max(seen) > 1
    fixed = BlackBox(lambda x: (x.view(4, 3, SIZE, SIZE) - x.mean(0)).mean((2, 3)))
    assert not neighbors_matter(
        Call(fixed), x, Call(fixed).answer(x)
    )  # there is no other way to run it
    gone = BlackBox(lambda x: 1 / 0)
    assert not neighbors_matter(Call(gone), x, x)


def test_rows_of_further_inputs_stay_with_their_images() -> None:
    class Shifted(Scores):
        def forward(self, x: Tensor, *, shift: Tensor) -> Any:  # type: ignore[override]
            return super().forward(x) * shift[:, None]

    x, shift = pictures(3, SIZE), torch.tensor([1.0, 10.0, 100.0])
    for take, expected in ((lambda a: a, False), (TAKEN["mean"], True)):
        call = Call(Shifted(take), inputs={"shift": shift})
        assert neighbors_matter(call, x, call.answer(x)) is expected


def test_what_it_costs() -> None:
    def passes(take: Take, n: int) -> list[int]:
        net, x = Scores(take), pictures(n, SIZE)
        answer = Call(net).answer(x)
        net.seen.clear()
        neighbors_matter(Call(net), x, answer)
        return net.seen

    for n in (2, 3, 4, 8, 64):
        assert passes(lambda a: a, n) == [n] * min(3, n)
    assert passes(TAKEN["mean"], 4) == [4, 4, 4, 4, 1]
    assert passes(lambda a: a + torch.rand(1), 4) == [4, 4, 4, 4]
    noise = torch.Generator().manual_seed(0)
    assert passes(lambda a: a + torch.rand(1, generator=noise), 4) == [4, 4, 4, 4, 4]


def test_state_is_as_it_was() -> None:
    class Counting(Scores):
        def __init__(self) -> None:
            super().__init__(lambda a: a)
            self.register_buffer("most", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x: Tensor) -> Any:
            self.most.fill_(torch.maximum(self.most, x.max()))
            self.mean = self.mean + x.mean()
            return super().forward(x) - self.most

    net, x = Counting(), pictures(3, SIZE)
    answer = Call(net).answer(x)
    held, kept = net.mean, (net.mean.clone(), net.most.clone())
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert neighbors_matter(
        Call(net), x, answer
    )  # what is seen of one changes what is said of the others
    assert net.mean is held
    assert (net.mean, net.most) == kept
    assert torch.equal(torch.rand(1), expected)
