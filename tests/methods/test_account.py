"""Does a map of relevance add up, and does it say so where it does not?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import timm
import torch
from timm.models.cait import Cait
from timm.models.convnext import ConvNeXt
from timm.models.davit import DaVit
from timm.models.vision_transformer import VisionTransformer
from timm.models.xcit import Xcit
from torch import Tensor, nn

import seewhy
from seewhy import Attribution, Trace
from seewhy.engine.rules.composites import uniform_epsilon
from seewhy.engine.rules.relevance import Relevance
from seewhy.maps.values import STATUS_MEANINGS
from seewhy.methods.account import Account, settled
from seewhy.render.reading import status_words, trust_words
from tiny_models import TinyCNN, TinyResNet, pictures, randomised, tiny_vit

PARTS = ("arrived", "off_picture", "kept", "absorbed", "rest")


def explained(
    net: nn.Module, x: Tensor, method: str = "lrp", *, layers: str | None = None, **options: object
) -> Attribution:
    """By default of a start at the score, and where all of it shall arrive, unless asked otherwise."""
    plain: dict[str, object] = {}
    if method == "lrp":
        plain = {"seed": "lrp", "composite": "conserving"}
    elif method == "layer_relevance":
        plain = {"seed": "lrp"}
    return seewhy.explain(
        net, x, methods=method, targets=1, layers=layers, options={method: {**plain, **options}}
    )[0]


def accounts(a: Attribution) -> list[Mapping[str, float]]:
    """What the facts say, after checking that it is an account."""
    found = [facts["relevance"] for facts in a.facts]
    for account in found:
        whole = max(account["size"], max(abs(account[part]) for part in PARTS))
        assert sum(account[part] for part in PARTS) == pytest.approx(
            account["started"], abs=1e-5 * whole
        )
    return found


# ---------------------------------------------------------------- by hand


class Placed(nn.Module):
    """Scores w (x + position), summed: the picture has w x, the position embedding w position."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.position = nn.Parameter(
            size * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(3))
        )
        self.fc = nn.Linear(192, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((x + self.position).flatten(1))


@pytest.mark.parametrize(("size", "status"), [(1e-6, "ok"), (2.0, "withheld")])
def test_a_position_embedding_keeps_its_share(size: float, status: str) -> None:
    net, x = Placed(size).double(), pictures(3)[:, :, :8, :8].double()
    a = explained(net, x)
    with torch.no_grad():
        w = net.fc.weight[1]
        kept, arrived = float(w @ net.position.flatten()), (x.flatten(1) @ w).tolist()
    for n, account in enumerate(accounts(a)):
        assert (account["kept"], account["arrived"]) == pytest.approx(
            (kept, arrived[n]), rel=1e-4, abs=1e-5
        )
        assert account["started"] == pytest.approx(a.scores[n], rel=1e-5)
    if status == "withheld":
        assert a.status == ("withheld",) * 3
        assert "position embedding keep" in status_words(a, 0)
        assert "position embedding keep" in trust_words(a, 0)
    else:
        assert "withheld" not in a.status
        assert trust_words(a, 0) == ""


def test_a_bias_that_may_absorb_is_no_fault() -> None:
    net, x = (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).double(),
        pictures(2)[:, :, :8, :8].double(),
    )
    net[1].bias.data += 3
    bias = float(net[1].bias[1].detach())
    a = explained(net, x, composite=uniform_epsilon(0))
    for n, account in enumerate(accounts(a)):
        assert account["absorbed"] == pytest.approx(bias, rel=1e-5)
        assert account["arrived"] == pytest.approx(a.scores[n] - bias, rel=1e-4, abs=1e-5)
        assert "biases absorb" in trust_words(a, n)
    assert not {"withheld", "unbalanced"} & set(a.status)


class Powered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumprod(1 + 0.1 * x, 3)


def test_relevance_that_an_operation_loses_is_a_status_that_names_it() -> None:
    net = nn.Sequential(Powered(), nn.Flatten(), nn.Linear(192, 4, bias=False)).double()
    x = pictures(2)[:, :, :8, :8].double().abs() + 0.1
    net[2].weight.data.abs_()
    with pytest.warns(seewhy.SeewhyWarning, match="cumprod"):
        a = explained(net, x, strict=False)
    arrived = a.map.flatten(1).sum(1).tolist()
    for n, account in enumerate(accounts(a)):
        assert account["arrived"] == pytest.approx(arrived[n], rel=1e-4)
        assert account["rest"] == pytest.approx(a.scores[n] - arrived[n], rel=1e-3)
    assert a.status == ("unbalanced",) * 2
    assert a.facts[0]["lost_at"] == "cumprod"
    assert status_words(a, 0).startswith(STATUS_MEANINGS["unbalanced"])
    assert status_words(a, 0).endswith("is nowhere, most at cumprod")


def test_a_negative_score_leaves_nothing_that_speaks_for_it() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False))
    net[1].weight.data = -net[1].weight.data.abs()
    a = explained(net, pictures(1)[:, :, :8, :8].abs() + 0.1)
    assert a.status == ("empty",)
    assert status_words(a, 0).endswith("the score itself is negative")


# ---------------------------------------------------------------- layers


def test_a_class_token_of_the_layer_lies_off_the_picture() -> None:
    net, x = randomised(tiny_vit()).double(), pictures(2).double()
    layer = "blocks.1"
    a = explained(net, x, "layer_relevance", layers=layer, composite="conserving")
    with Trace(net, x, layers=[layer], rules=Relevance("conserving")) as trace:
        r = (trace.activations[layer] * trace.signal(1)[layer]).sum(2)  # (N, L)
    for n, account in enumerate(accounts(a)):
        assert account["off_picture"] == pytest.approx(float(r[n, 0]), rel=1e-4, abs=1e-5)
        assert account["arrived"] == pytest.approx(float(r[n, 1:].sum()), rel=1e-4, abs=1e-5)


class OwnTokens(nn.Module):
    """Patches behind a class token and a register, at positions under the given names: the score is linear in all."""

    def __init__(self, position: str = "pos_embed", *, derived: bool = False) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.patches = nn.Conv2d(3, 4, 16, 16, bias=False)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 4, generator=draw))
        self.register_tokens = nn.Parameter(torch.randn(1, 1, 4, generator=draw))
        self.register_parameter(position, nn.Parameter(torch.randn(1, 4, 4, generator=draw)))
        self.position, self.derived = position, derived
        self.head = nn.Linear(24, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        position = getattr(self, self.position)
        first = self.cls_token + position[:, :1] if self.derived else self.cls_token
        x = self.patches(x).flatten(2).transpose(1, 2) + position
        own = [token.expand(len(x), -1, -1) for token in (first, self.register_tokens)]
        return self.head(torch.cat([*own, x], 1).flatten(1))


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("position", ["pos_embed", "where"])
def test_the_class_token_registers_and_positions_have_a_share_each(
    position: str, derived: bool
) -> None:
    net, x = OwnTokens(position, derived=derived).double(), pictures(2).double()
    a = explained(net, x)
    with torch.no_grad():
        weight = net.head.weight[1].reshape(6, 4)
        token = net.cls_token + (getattr(net, position)[:, :1] if derived else 0)
        by_hand = {
            "class_token": float((weight[0] * token).sum()),
            "registers": float((weight[1] * net.register_tokens).sum()),
            "position_embedding": float((weight[2:] * getattr(net, position)).sum()),
        }
    for n, account in enumerate(accounts(a)):
        assert a.facts[n]["relevance"]["kept_by"] == pytest.approx(by_hand, rel=1e-4)
        assert account["kept"] == pytest.approx(sum(by_hand.values()), rel=1e-4)
        words = trust_words(a, n)
        assert "the class token keeps" in words
        assert "registers keep" in words
        assert "the position embedding keeps" in words
        assert "other constants" not in words


def test_what_a_vit_keeps_is_relevance_of_its_own_parameters() -> None:
    net, x = randomised(tiny_vit(reg_tokens=2)).double(), pictures(2).double()
    a = explained(net, x, composite="conserving")
    with Trace(net, x, layers=["norm_pre"], rules=Relevance("conserving")) as trace:
        signal = trace.signal(1)["norm_pre"].detach()  # (N, L, C), R / a
    own = {name: value.detach()[0] for name, value in net.named_parameters(recurse=False)}
    for slope, facts in zip(signal, a.facts, strict=True):
        by_hand = {
            "class_token": float((slope[:1] * own["cls_token"]).sum()),
            "registers": float((slope[1:3] * own["reg_token"]).sum()),
            "position_embedding": float((slope * own["pos_embed"]).sum()),
        }
        assert facts["relevance"]["kept_by"] == pytest.approx(by_hand, rel=1e-3)


def test_what_goes_past_a_layer_of_a_vit_is_no_position_embedding() -> None:
    """The residual stream beside `blocks.2.norm1` is not traced; it is the picture's all the same."""
    net, x = randomised(tiny_vit()).double(), pictures(2).double()
    a = explained(net, x, "layer_relevance", layers="blocks.2.norm1")
    for n, account in enumerate(accounts(a)):
        assert set(a.facts[n]["relevance"]["kept_by"]) == {"past_layer"}
        assert a.facts[n]["relevance"]["kept_by"]["past_layer"] == pytest.approx(account["kept"])


def test_what_goes_past_a_layer_is_not_lost() -> None:
    """One layer of a residual branch beside one that all passes: the same as by itself."""
    net, x = randomised(TinyResNet()).double(), pictures(2).double()
    names = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)]
    branch, stem = names[-1], names[0]
    both = seewhy.explain(
        net,
        x,
        methods="layer_relevance",
        targets=1,
        layers=[stem, branch],
        options={"layer_relevance": {"seed": "lrp"}},
    )
    alone = explained(net, x, "layer_relevance", layers=branch)
    for one, other in zip(accounts(both.select(layer=branch)[0]), accounts(alone), strict=True):
        assert one["arrived"] == pytest.approx(other["arrived"], rel=1e-4)
        assert abs(one["rest"]) < 0.01 * one["size"]


def test_accounts_that_do_not_close_stay_so() -> None:
    def account(rest: float) -> Account:
        one, zero = torch.ones(1), torch.zeros(1)
        return Account(one, one, one - rest, *[zero] * 7)

    late, early = account(0.5), account(0.02)
    assert settled({"late": late, "early": early}, ["late", "early"])["late"].kept.tolist() == [0.5]
    assert settled({"late": late, "early": late}, ["late", "early"])["late"].kept.tolist() == [0.0]
    assert late.facts(promised=True)[0]["unbalanced"]
    assert "withheld" not in early.facts(promised=True)[0]


class TokensFirst(nn.Module):
    """Tokens (L, N, C) with a position embedding and a bias."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 8, 8)
        self.position = nn.Parameter(torch.randn(side * side, 1, 6))
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).permute(2, 0, 1) + self.position
        return self.head(torch.relu(self.mix(tokens)).mean(0))


@pytest.mark.parametrize("images", [3, 4, 8])  # of 4 tokens: told apart, as many, a multiple
@pytest.mark.parametrize("composite", ["conserving", "epsilon_gamma"])
def test_each_image_has_its_own_account_when_tokens_come_first(images: int, composite: str) -> None:
    net, x = (
        randomised(TokensFirst(2)).double(),
        torch.randn(images, 3, 16, 16, dtype=torch.float64),
    )
    together = accounts(explained(net, x, composite=composite))
    for n in range(images):
        (alone,) = accounts(explained(net, x[n : n + 1], composite=composite))
        assert [together[n][p] for p in PARTS[:-1]] == pytest.approx(
            [alone[p] for p in PARTS[:-1]], abs=1e-4
        )


# ---------------------------------------------------------------- families


_vit = partial(
    VisionTransformer, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=5
)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "cnn": TinyCNN,
    "vit": tiny_vit,
    "convnext_v2": lambda: ConvNeXt(
        depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), use_grn=True, ls_init_value=None, num_classes=5
    ),
    "davit": lambda: DaVit(
        depths=(1, 1), embed_dims=(12, 16), num_heads=(2, 2), window_size=4, num_classes=5
    ),
    "cait": lambda: Cait(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=2,
        num_classes=5,
        init_values=0.5,
    ),
    "xcit": lambda: Xcit(
        img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2, num_classes=5, eta=0.5
    ),
    "siglip": lambda: _vit(class_token=False, global_pool="map"),
    "clip": lambda: _vit(pre_norm=True, norm_layer=nn.LayerNorm),
    "dinov2_registers": lambda: _vit(reg_tokens=4, no_embed_class=True, init_values=0.5),
    "mobilenet": lambda: timm.create_model("mobilenetv2_035", num_classes=5),
}


@pytest.mark.parametrize("composite", ["conserving", "epsilon_gamma"])
@pytest.mark.parametrize("name", FAMILIES)
def test_all_relevance_is_accounted_for_in_each_image(name: str, composite: str) -> None:
    torch.manual_seed(1)
    net, x = randomised(FAMILIES[name]()).double(), pictures(2).double()
    a = explained(net, x, composite=composite)
    for account in accounts(a):
        assert abs(account["rest"]) <= 0.02 * account["size"]
    assert "unbalanced" not in a.status
    singles = [accounts(explained(net, x[n : n + 1], composite=composite))[0] for n in range(2)]
    for one, other in zip(accounts(a), singles, strict=True):
        whole = max(abs(one[p]) for p in PARTS)
        assert [one[p] for p in PARTS] == pytest.approx([other[p] for p in PARTS], abs=1e-4 * whole)


@pytest.mark.parametrize("name", ["cnn", "convnext_v2", "davit"])
def test_all_of_the_score_arrives_where_nothing_keeps_it(name: str) -> None:
    torch.manual_seed(1)
    a = explained(randomised(FAMILIES[name]()).double(), pictures(2).double())
    for account in accounts(a):
        assert account["arrived"] == pytest.approx(account["started"], rel=0.02)


def test_a_contrast_starts_at_zero_and_is_measured_by_its_size() -> None:
    net, x = randomised(TinyCNN()).double(), pictures(2).double()
    a = explained(net, x, "clrp")
    for n, account in enumerate(accounts(a)):
        assert account["size"] == pytest.approx(2 * abs(a.scores[n]), rel=1e-4)
        assert account["started"] == pytest.approx(0, abs=1e-5)
    assert a.status == ("ok", "ok")
