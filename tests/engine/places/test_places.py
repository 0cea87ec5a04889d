"""Where layers' numbers lie, on networks where that is planted: sizes that agree by chance decide nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import oracles
from planted import Channels, Grid, Planted
from seewhy import Trace
from seewhy.engine.call import Call
from seewhy.engine.flow import find_flow
from seewhy.engine.places.places import find_places, picture_layout
from seewhy.errors import LayerError
from seewhy.methods import grad_cam
from tiny_models import Called, TinyCNN, pictures, randomised, tiny_vit


def shuffled(n: int, seed: int = 0) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


PLANTED: dict[str, tuple[Grid, dict[str, Any]]] = {
    "usual": ((8, 8), {}),
    "no class token": ((8, 8), {"before": 0}),
    "registers, not square": ((4, 6), {"before": 5}),
    "words after it": ((6, 6), {"before": 2, "after": 9}),
    "detection tokens": ((4, 4), {"before": 1, "after": 9}),
    "any order": ((8, 8), {"order": shuffled(64)}),
    "any order, not square, tokens first": ((4, 6), {"order": shuffled(24), "dims": (1, 0, 2)}),
    "upside down": ((5, 7), {"order": list(reversed(range(35)))}),
    "turned": ((6, 6), {"order": torch.arange(36).view(6, 6).T.flatten().tolist()}),
    "tokens first": ((8, 8), {"dims": (1, 0, 2)}),
    "channels before tokens": ((8, 8), {"dims": (0, 2, 1)}),
    "as many channels as tokens": ((4, 4), {"before": 0, "dims": (0, 2, 1)}),
    "pixels folded out": ((8, 8), {"convolved": False}),
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("batch", ["1", "2", "as many as tokens"])
def test_planted_places_are_found(kind: str, batch: str) -> None:
    grid, options = PLANTED[kind]
    net = randomised(Planted(grid, **options))
    tokens = len(net.order) + net.before + net.last.shape[1]
    x = pictures(tokens if batch == "as many as tokens" else int(batch), (grid[0] * 4, grid[1] * 4))
    with Trace(net, x, layers=["at"], grad=False) as trace:
        seen = trace.activations["at"]
    assert torch.equal(
        picture_layout(find_places(net, x), x, "at", seen).to_grid(seen), net.truth(seen)
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 46), (35, 31)])
def test_pictures_that_are_no_multiple_of_the_patch(size: Grid) -> None:
    net = randomised(Planted((size[0] // 4, size[1] // 4), before=5))
    assert grad_cam(net, pictures(1, size), 1, layer="at").shape[1:] == (size[0] // 4, size[1] // 4)


@pytest.mark.parametrize("dims", [(0, 1, 2, 3), (0, 2, 3, 1)])
@pytest.mark.parametrize(
    ("channels", "size", "stride"), [(8, (32, 32), 4), (6, (24, 48), 4), (8, (32, 40), (4, 1))]
)
def test_pictures_whose_numbers_agree(
    dims: tuple[int, ...], channels: int, size: Grid, stride: int | Grid
) -> None:
    net, x = randomised(Channels(channels, dims, stride)), pictures(2, size)
    for name in ("at", None):
        found, plain = grad_cam(net, x, 1, layer=name), grad_cam(net, x, 1, layer="stem")
        torch.testing.assert_close(found, plain)


def test_a_turned_picture_is_turned_back_or_refused() -> None:
    net, x = randomised(Channels(8, (0, 1, 3, 2))), pictures(1)
    torch.testing.assert_close(grad_cam(net, x, 1, layer="at"), grad_cam(net, x, 1, layer="stem"))
    with pytest.raises(LayerError, match=r"'at' gives .* is no picture"):
        grad_cam(net, pictures(1, (24, 48)), 1, layer="at")


class Queries(nn.Module):
    """A decoder whose learned queries attend to places: as many of them as may pass for a picture."""

    def __init__(self, queries: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU())
        self.queries = nn.Parameter(torch.empty(queries, 16))
        self.dec = nn.TransformerDecoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.body(x).flatten(2).mT
        return self.head(self.dec(self.queries.expand(len(x), -1, -1), memory)).amax(1)


@pytest.mark.parametrize("queries", [9, 16, 25, 64, 65, 100])
def test_queries_are_no_places(queries: int) -> None:
    net, x = randomised(Queries(queries)), pictures(1)
    assert find_flow(net, x).chosen[-1] == "body"
    with pytest.raises(LayerError, match=r"'dec' gives .* is no picture: its places answer alike"):
        grad_cam(net, x, 1, layer="dec")


def test_attention_weights_are_no_picture() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.qk, self.weights = (
                nn.Conv2d(3, 8, 8, 8),
                nn.Linear(8, 16),
                nn.Softmax(-1),
            )
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).mT  # (N, 16, 8)
            q, k = self.qk(tokens).chunk(2, -1)
            return self.head(
                (self.weights(torch.stack([q @ k.mT] * 2, 1)).mean(1) @ tokens).mean(1)
            )

    net, x = randomised(Attending()), pictures(1)
    assert find_flow(net, x).chosen[-1] != "weights"
    with pytest.raises(LayerError, match="no picture"):
        grad_cam(net, x, 1, layer="weights")


def test_raw_detections_beside_feature_maps() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.boxes = (
                nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.SiLU()),
                nn.Conv2d(8, 7, 1),
            )

        def forward(self, x: Tensor) -> Any:
            seen = self.body(x)
            raw = self.boxes(seen).flatten(2)  # (N, 4 + K, places)
            return torch.cat([raw[:, :4].sigmoid(), raw[:, 4:].sigmoid()], 1), seen

    chosen = find_flow(
        Call(randomised(Detector()), output=lambda answer: answer[0]), pictures(1)
    ).chosen
    assert chosen[-1] in ("body", "boxes")


def test_a_branch_of_its_own_patches() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(3, 8, 6, 6)
            self.fine_tokens, self.coarse_tokens, self.head = (
                nn.Linear(8, 8),
                nn.Linear(8, 8),
                nn.Linear(8, 5),
            )

        def forward(self, x: Tensor) -> Tensor:
            fine = self.fine_tokens(self.fine(x).flatten(2).mT)
            coarse = self.coarse_tokens(self.coarse(x).flatten(2).mT)
            return self.head(fine.mean(1) + coarse.mean(1))

    places = find_places(randomised(Branches()), pictures(1, (48, 36)))
    assert places.layouts["fine_tokens", 0].grid == (12, 9)
    assert places.layouts["coarse_tokens", 0].grid == (8, 6)


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = TinyCNN()

    def forward(self, x: Tensor) -> Tensor:
        views = x.unflatten(1, (4, 3)).flatten(0, 1)
        return self.net(views).view(len(x), 4, -1).mean(1)


def test_views_in_the_batch_are_told() -> None:
    net, x = randomised(Views()), pictures(2, channels=12)
    for layer in ("net.relu2", None):
        with pytest.raises(LayerError, match="its batch has 4 rows for each picture"):
            grad_cam(net, x, 1, layer=layer)


# ---------------------------------------------------------------- which of several calls


class Twice(nn.Module):
    """One trunk looks at the picture and at another."""

    def __init__(self, *, picture_first: bool = True) -> None:
        super().__init__()
        self.trunk, self.picture_first = TinyCNN(), picture_first

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        both = [x, other] if self.picture_first else [other, x]
        a, b = (self.trunk(picture) for picture in both)
        return F.cosine_similarity(a, b)[:, None]


@pytest.mark.parametrize("picture_first", [True, False])
@pytest.mark.parametrize("layer", ["trunk.relu2", None])
def test_the_call_that_depends_on_the_picture(picture_first: bool, layer: str | None) -> None:
    net, x, other = randomised(Twice(picture_first=picture_first)), pictures(1), pictures(1, seed=1)
    maps = []
    for call in (0, 1):
        maps.append(grad_cam(net, x, 0, layer=f"trunk.relu2@{call}", args=(other,)))
        kept: list[Tensor] = []
        handle = net.trunk.relu2.register_forward_hook(
            lambda module, args, value, to=kept: to.append(value)
        )
        score = net(x.clone().requires_grad_(), other.clone().requires_grad_())
        handle.remove()
        (g,) = torch.autograd.grad(score.sum(), kept[call])
        expected = oracles.grad_cam(kept[call].detach()[0].double().numpy(), g[0].double().numpy())
        torch.testing.assert_close(
            maps[-1][0].double(), torch.as_tensor(expected), rtol=1e-4, atol=1e-7
        )
    own = maps[0 if picture_first else 1]
    assert torch.equal(grad_cam(net, x, 0, layer=layer, args=(other,)), own)
    names = [record.name for record in find_flow(Call(net, args=(other,)), x).records]
    assert {"trunk.relu2", f"trunk.relu2@{int(picture_first)}"} <= set(names)


def test_a_call_that_there_is_not() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    with pytest.raises(LayerError, match="layer relu2@1 did not run"):
        grad_cam(net, x, 0, layer="relu2@1")
    with pytest.raises(LayerError, match=r"'relu9@0' is not in TinyCNN; did you mean"):
        grad_cam(net, x, 0, layer="relu9@0")
    assert torch.equal(grad_cam(net, x, 0, layer="relu2@0"), grad_cam(net, x, 0, layer="relu2"))


# ---------------------------------------------------------------- what it costs


def test_a_grid_costs_four_passes_and_the_first_layer_once_more_and_nothing_afterwards() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    counting = Called(net)
    counting.net = net
    ran: list[int] = []
    counting.register_forward_pre_hook(lambda module, args: ran.append(len(args[0])))
    whole: list[int] = []
    counting.register_forward_hook(lambda module, args, value: whole.append(len(value)))
    find_places(counting, x)
    assert (ran, whole) == ([1, 3, 5], [1, 3])
    find_places(counting, pictures(2, seed=1))
    grad_cam(counting, x[:1], 0, layer="net.relu2")
    assert ran == [1, 3, 5, 1]


def test_tokens_cost_one_batch_of_the_code() -> None:
    net = randomised(Planted((8, 8)))
    kept: list[int] = []
    net.patches.register_forward_hook(lambda module, args, value: kept.append(len(value)))
    find_places(net, pictures(5))
    assert sum(kept) == 4 + 2 * (3 + 3) + 5  # and the rims, as far as the patches


# ---------------------------------------------------------------- models that are run in other ways


def test_a_model_that_takes_one_picture() -> None:
    net, x = randomised(Planted((8, 8), dims=(1, 0, 2))), pictures(1)

    def one(picture: Tensor) -> Tensor:
        if len(picture) > 1:
            raise ValueError("one picture at a time")
        return net(picture)

    single = Called(one)
    single.net = net
    torch.testing.assert_close(
        grad_cam(single, x, 1, layer="net.at"), grad_cam(net, x, 1, layer="at")
    )


def test_a_model_that_takes_only_a_few_pictures_at_once() -> None:
    net, x = randomised(Planted((8, 8), order=shuffled(64))), pictures(1)

    def few(picture: Tensor) -> Tensor:
        said = net(picture)
        if len(picture) > 3:  # after its layers were heard, as where memory ends
            raise MemoryError
        return said

    limited = Called(few)
    limited.net = net
    assert find_places(limited, x).layouts["net.at", 0] == find_places(net, x).layouts["at", 0]


def test_images_of_a_batch_that_depend_on_each_other() -> None:
    net = randomised(TinyCNN())
    net.bn1 = nn.BatchNorm2d(8, track_running_stats=False).eval()
    assert find_places(net, pictures(1)).layouts["relu2", 0].grid == (8, 8)


def test_the_model_is_left_as_it_was() -> None:
    net = randomised(TinyCNN(dropout=0.5), train=True)
    state = torch.get_rng_state()
    find_places(net, pictures(1))
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks for part in net.modules())


# ---------------------------------------------------------------- what has as many places and is none


class Mirrored(nn.Module):
    """A trunk that sees the picture and its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU()), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).mean((2, 3)) + self.trunk(x.flip(-1)).mean((2, 3)))


def test_a_mirrored_picture_is_not_taken_for_the_picture() -> None:
    net, x = randomised(Mirrored()), pictures(1, 64)
    expected = grad_cam(net, x, 2, layer="trunk@0")
    for layer in ("trunk", None):
        assert torch.equal(grad_cam(net, x, 2, layer=layer), expected)
    with pytest.raises(LayerError, match="no picture"):
        grad_cam(net, x, 2, layer="trunk@1")


class Latents(nn.Module):
    """Learned latents, as many as cells, that attend to tokens between two layers of these."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.latents = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.empty(1, 64, 16))
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attend, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(self.patches(x).flatten(2).mT)
        latents = self.attend(self.latents.expand(len(x), -1, -1), tokens, tokens)[0]
        tokens = self.second(tokens)
        return self.head(self.attend(latents, tokens, tokens)[0].mean(1))


def test_latents_between_tokens_have_no_places() -> None:
    net, x = randomised(Latents()), pictures(1, 64)
    for call in ("attend", "attend@0", "attend@1"):
        with pytest.raises(LayerError, match="no picture"):
            grad_cam(net, x, 0, layer=call)
    assert find_places(net, x).layouts["second", 0].grid == (8, 8)


class Scales(nn.Module):
    """Tokens of three scales in a row, as a detector's encoder has them."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = (
            nn.Conv2d(3, 16, 8, 8),
            nn.Conv2d(16, 16, 2, 2),
            nn.Conv2d(16, 16, 2, 2),
        )
        self.tokens, self.head = nn.LayerNorm(16), nn.Linear(16, 5)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        middle = self.middle(fine)
        scales = (fine, middle, self.coarse(middle))
        tokens = self.tokens(torch.cat([scale.flatten(2).mT for scale in scales], 1))
        return self.head(self.block(tokens).mean(1))


@pytest.mark.parametrize("size", [64, 96, 128, (96, 160)])
def test_tokens_of_several_scales_are_no_picture(size: int | Grid) -> None:
    net, x = randomised(Scales()), pictures(1, size)
    for layer in ("tokens", "block"):
        with pytest.raises(LayerError, match="no picture"):
            grad_cam(net, x, 0, layer=layer)
    assert {"fine", "middle", "coarse"} <= {name for name, _ in find_places(net, x).layouts}


def test_words_that_have_read_the_picture_are_beside_it() -> None:
    net = randomised(Planted((8, 8), after=70))
    assert find_places(net, pictures(1)).layouts["block", 0].grid == (8, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_find_the_same_layers(dtype: torch.dtype) -> None:
    expected = find_flow(randomised(tiny_vit()), pictures(1)).chosen
    assert find_flow(randomised(tiny_vit()).to(dtype), pictures(1).to(dtype)).chosen == expected


class Odd(nn.Module):
    """What tensors of a forward pass may be that have no memory or no versions."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.relu, self.fc, self.kind = (
            nn.Conv2d(3, 8, 4, 4),
            nn.ReLU(),
            nn.Linear(8, 8),
            kind,
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "inference":
            with torch.inference_mode():
                a = self.conv(x)
            return self.head(self.relu(a.clone()).mean((2, 3)))
        a = self.relu(self.conv(x))
        tokens = torch.func.vmap(self.fc)(a.flatten(2).mT)
        return self.head(tokens.mean(1))


@pytest.mark.parametrize("kind", ["inference", "vmap"])
def test_tensors_without_memory_or_versions(kind: str) -> None:
    net, x = randomised(Odd(kind)), pictures(1)
    assert find_places(net, x).layouts["relu", 0].grid == (8, 8)
    assert grad_cam(net, x, 1, layer="relu").shape == (1, 8, 8)
