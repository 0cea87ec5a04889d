"""Which layers are found, how their outputs lie over the image, and how layers are named."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

import seewhy
from seewhy import Trace
from seewhy.engine.flow import find_flow
from seewhy.engine.layers import resolve_layer, unwrap
from seewhy.engine.layout import Layout
from seewhy.engine.places.places import find_places, picture_layout
from seewhy.errors import ArgumentTypeError, LayerError
from seewhy.methods import grad_cam
from tiny_models import Called, ModelState, TinyCNN, pictures, randomised, tiny_vit

tv = torchvision.models
Grid = tuple[int, int]


def no_init(name: str, **options: Any) -> nn.Module:
    return tv.get_model(name, init_weights=False, **options)


def vgg11() -> nn.Module:
    net = no_init("vgg11")
    net.classifier = nn.Sequential(nn.Linear(512 * 49, 5))  # not 120 million weights
    return net


def hf_vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config)


HF_BLOCKS = (
    "vit.layers" if hasattr(hf_vit().vit, "layers") else "vit.encoder.layer"
)  # of transformers 5, and before


def hf_convnext() -> nn.Module:
    return transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1])
    )


def hf_swin() -> nn.Module:
    return transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1, 1],
            num_heads=[1, 1, 2],
            window_size=4,
        )
    )


def tv_vit() -> nn.Module:
    return tv.VisionTransformer(64, 16, 3, 2, 32, 64, num_classes=7)


def made(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


# model, image size, default layer, its layout, its grid, prefix tokens, number of stages
FOUND: dict[str, tuple[Callable[[], nn.Module], int | Grid, str, str, Grid, int, int]] = {
    "resnet18": (tv.resnet18, 64, "layer4", "channels_first", (2, 2), 0, 5),
    "resnet18 wide": (tv.resnet18, (64, 96), "layer4", "channels_first", (2, 3), 0, 5),
    "vgg11": (vgg11, 64, "features.19", "channels_first", (4, 4), 0, 5),
    "densenet": (lambda: tv.DenseNet(4, (2, 2, 2), 8), 64, "features", "channels_first", (4, 4), 0, 4),
    "mobilenet_v2": (tv.mobilenet_v2, 64, "features", "channels_first", (2, 2), 0, 5),
    "squeezenet1_1": (tv.squeezenet1_1, 64, "classifier.2", "channels_first", (3, 3), 0, 4),
    "convnext_tiny": (tv.convnext_tiny, 64, "features", "channels_first", (2, 2), 0, 4),
    "swin_t": (tv.swin_t, 64, "norm", "channels_last", (2, 2), 0, 4),
    "inception_v3": (lambda: no_init("inception_v3"), 96, "Mixed_6e", "channels_first", (4, 4), 0, 6),
    "googlenet": (lambda: no_init("googlenet"), 64, "inception5b", "channels_first", (2, 2), 0, 5),
    "torchvision vit": (tv_vit, 64, "encoder.layers.encoder_layer_2.ln_1", "tokens", (4, 4), 1, 1),
    "timm vit": (made("vit_tiny_patch16_224", img_size=96), 96, "blocks.11.norm1", "tokens", (6, 6), 1, 1),
    "timm vit wide": (
        made("vit_tiny_patch16_224", img_size=(64, 96)), (64, 96), "blocks.11.norm1", "tokens", (4, 6), 1, 1,
    ),
    "deit distilled": (
        made("deit_tiny_distilled_patch16_224", img_size=96, depth=3), 96, "blocks.2.norm1", "tokens", (6, 6), 2, 1,
    ),
    "registers": (
        made("vit_small_patch14_reg4_dinov2", img_size=70, depth=3), 70, "blocks.2.norm1", "tokens", (5, 5), 5, 1,
    ),
    "vit mean pool": (lambda: tiny_vit(global_pool="avg"), 32, "blocks", "tokens", (4, 4), 1, 1),
    "timm swin": (
        made("swin_tiny_patch4_window7_224", img_size=112, depths=(1, 1, 1, 1)),
        112, "norm", "channels_last", (4, 4), 0, 4,
    ),
    "xcit": (
        made("xcit_nano_12_p16_224", img_size=96, depth=2), 96, "cls_attn_blocks.1.norm1", "tokens", (6, 6), 1, 4,
    ),
    "cait": (made("cait_xxs24_224", img_size=96, depth=3), 96, "blocks", "tokens", (6, 6), 0, 1),
    "mixer": (lambda: timm.models.MlpMixer(5, 96, patch_size=16, num_blocks=2, embed_dim=24), 96, "norm", "tokens",
              (6, 6), 0, 1),
    "hf vit": (hf_vit, 32, f"{HF_BLOCKS}.2.layernorm_before", "tokens", (4, 4), 1, 1),
    "hf convnext": (hf_convnext, 64, "convnext.encoder", "channels_first", (2, 2), 0, 4),
    "hf swin": (hf_swin, 64, "swin.layernorm", "tokens", (4, 4), 0, 3),
}  # fmt: skip


BEFORE_MIXING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "timm vit": (tiny_vit, "pos_drop"),
    "registers": (lambda: tiny_vit(reg_tokens=4), "pos_drop"),
    "mean pool": (lambda: tiny_vit(class_token=False, global_pool="avg"), "pos_drop"),
    "hf vit": (hf_vit, "vit.embeddings"),
}


@pytest.mark.parametrize("model", BEFORE_MIXING)
def test_layer_relevance_reads_tokens_before_they_mix(model: str) -> None:
    make, layer = BEFORE_MIXING[model]
    (a,) = seewhy.explain(randomised(make()), pictures(1), methods="layer_relevance", targets=1)
    assert a.layer == layer


def test_a_network_without_tokens_has_its_default() -> None:
    flow = find_flow(randomised(TinyCNN()), pictures(1))
    assert flow.before_tokens_mix == flow.default


@pytest.mark.parametrize("model", FOUND)
def test_layers_found(model: str) -> None:
    make, size, default, kind, grid, prefix, stages = FOUND[model]
    net = randomised(make())
    before, x = ModelState(net), pictures(1, size)
    flow = find_flow(net, x)
    before.assert_unchanged()
    by_name = {record.name: record for record in flow.records}
    assert flow.default == default
    assert by_name[default].layout == Layout(kind, grid, prefix)  # type: ignore[arg-type]
    assert len(flow.chosen) == stages
    cells = [by_name[name].cells for name in flow.chosen]
    assert cells == sorted(set(cells), reverse=True)
    assert not any(by_name[name].pools for name in flow.chosen)
    with Trace(net, x, layers=[default]) as trace:  # the place of the map says something
        layout = by_name[default].layout
        assert layout is not None
        assert layout.to_grid(trace.signal(0)[default]).any()


def test_an_input_that_is_handed_on_is_no_layer() -> None:
    net = nn.Sequential(nn.Identity(), randomised(TinyCNN()))
    keeping = Called(lambda x: {"picture": x, "logits": net(x)})
    keeping.net = net
    assert find_flow(keeping, pictures(1)).chosen == ("net.1.relu1", "net.1.relu2")


def test_a_zero_head_still_has_a_layer() -> None:
    assert find_flow(
        tv_vit().eval(), pictures(1, 64)
    ).chosen  # torchvision begins with a head of zeros


def test_the_answer_is_remembered_by_size() -> None:
    net = randomised(TinyCNN())
    first = find_flow(net, pictures(1, 32))
    assert find_flow(net, pictures(3, 32, seed=5)) is first
    assert find_flow(nn.DataParallel(net), pictures(1, 32)) is first
    other = find_flow(net, pictures(1, (32, 48)))
    assert other is not first
    assert other.chosen == first.chosen == ("relu1", "relu2")


def test_works_under_inference_mode_and_in_threads() -> None:
    net, x = randomised(TinyCNN(dropout=0.5), train=True), pictures()
    with torch.inference_mode():
        assert find_flow(net, x).chosen == ("relu1", "relu2")
    nets = [randomised(TinyCNN(), train=True) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: find_flow(nets[i % 4], x).chosen, range(32)))
    assert set(found) == {("relu1", "relu2")}
    assert all(n.training for n in nets)
    assert not any(part._forward_hooks for n in nets for part in n.modules())


def test_a_model_without_a_picture() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with pytest.raises(LayerError, match="no layer of the model has a picture-shaped output"):
        grad_cam(net, pictures(1, 16), 0)
    with pytest.raises(
        LayerError, match=r"layer '1' gives \(1, 8\) for images of 16 x 16, which is no picture"
    ):
        grad_cam(net, pictures(1, 16), 0, layer="1")


def test_a_branch_is_not_chosen() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = (nn.Conv2d(c, 6, 3, 2, 1) for c in (3, 6, 6))
            self.join, self.fc = nn.ReLU(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x).relu()
            return self.fc(self.join(self.left(y) + self.right(y)).mean((2, 3)))

    assert find_flow(randomised(Branched()), pictures(1)).chosen == ("stem", "join")


def test_a_backbone_that_has_an_own_no_grad() -> None:
    class Frozen(TinyCNN):
        def stem(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().stem(x)

    net, x = randomised(Frozen()), pictures()
    assert find_flow(net, x).chosen[-1] == "relu2"
    assert grad_cam(net, x, 0).any()


def test_outputs_that_are_no_scores_fall_back_to_the_order() -> None:
    net = nn.Sequential(
        randomised(TinyCNN()).conv1, nn.ReLU(), Called(lambda a: {"boxes": a, "scores": a})
    )
    assert find_flow(net, pictures(1)).chosen == ("1",)


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_to_grid_of_every_layout_is_the_same_picture(prefix: int) -> None:
    picture = torch.randn(2, 6, 3, 5)  # (N, C, h, w)
    tokens = torch.cat([torch.full((2, prefix, 6), 99.0), picture.flatten(2).mT], 1)
    assert torch.equal(Layout("channels_first", (3, 5)).to_grid(picture), picture)
    assert torch.equal(
        Layout("channels_last", (3, 5)).to_grid(picture.permute(0, 2, 3, 1)), picture
    )
    assert torch.equal(Layout("tokens", (3, 5), prefix).to_grid(tokens), picture)
    assert torch.equal(
        Layout("tokens_first", (3, 5), prefix).to_grid(tokens.transpose(0, 1)), picture
    )


ORIENTED: dict[str, tuple[Callable[[], nn.Module], str, Grid]] = {
    "cnn": (TinyCNN, "relu2", (32, 64)),
    "timm vit": (lambda: tiny_vit(img_size=(32, 64), reg_tokens=2), "patch_embed", (32, 64)),
    "timm vit, norm of the second block": (
        lambda: tiny_vit(img_size=(32, 64)),
        "blocks.1.norm1",
        (32, 64),
    ),
    "swin": (lambda: tv.swin_t(), "features.1", (64, 96)),
    "hf vit": (hf_vit, f"{HF_BLOCKS}.0.layernorm_before", (32, 32)),
}


@pytest.mark.parametrize("model", ORIENTED)
@pytest.mark.parametrize("corner", [(0, 1), (1, 0), (0, 0), (1, 1)])
def test_a_patch_moves_its_own_corner_of_the_grid(model: str, corner: Grid) -> None:
    make, layer, size = ORIENTED[model]
    net, plain = randomised(make()), pictures(1, size)
    bright = plain.clone()
    rows, columns = (
        slice(0, s // 4) if at == 0 else slice(-s // 4, None)
        for at, s in zip(corner, size, strict=True)
    )
    bright[:, :, rows, columns] += 5
    grids = []
    for x in (plain, bright):
        with Trace(net, x, layers=[layer], grad=False) as trace:
            a = trace.activations[layer]
            grids.append(picture_layout(find_places(net, x), x, layer, a).to_grid(a))
    moved = (grids[1] - grids[0]).abs().sum(1)[0]
    y, x_ = divmod(int(moved.argmax()), moved.shape[1])
    assert (y >= moved.shape[0] // 2, x_ >= moved.shape[1] // 2) == (
        bool(corner[0]),
        bool(corner[1]),
    )


# ---------------------------------------------------------------- names


def test_layers_by_name_and_by_module() -> None:
    net = TinyCNN()
    assert resolve_layer(net, "conv2") == resolve_layer(net, net.conv2) == "conv2"
    assert resolve_layer(net, "input") == "input"
    net.alias = net.conv2
    assert resolve_layer(net, "alias") == "alias"
    with pytest.raises(
        LayerError,
        match=r"'conv3' is not in TinyCNN; did you mean 'conv[12]' or 'conv[12]'.*list_layers",
    ):
        resolve_layer(net, "conv3")
    with pytest.raises(ArgumentTypeError, match=r"layer=\['conv2'\] is no layer"):
        resolve_layer(net, ["conv2"])  # type: ignore[arg-type]


def test_wrappers_come_off() -> None:
    net = TinyCNN()
    assert unwrap(nn.DataParallel(net)) is net
    assert unwrap(torch.compile(nn.DataParallel(net), backend="eager")) is net
    assert unwrap(net) is net


class _Stages(nn.Module):
    """Two stages; the second begins with a part that still has the resolution of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        )
        self.second = nn.Sequential(
            nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.second(self.first(x)).mean((2, 3)))
        return scores


def test_the_stage_before_the_last_ends_where_the_next_begins() -> None:
    x = pictures(1, 32)
    flow = find_flow(randomised(_Stages()), x)
    assert flow.chosen == ("second.1", "second")
    assert flow.stage_before_the_last == "first"
    single = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    alone = find_flow(randomised(single), x)
    assert alone.stage_before_the_last == alone.default
    net = randomised(_Stages())
    found = seewhy.methods.layer_cam(net, x, 1)
    assert torch.equal(found, seewhy.methods.layer_cam(net, x, 1, layer="first"))
    staged = seewhy.explain(net, x, methods="layer_cam", targets=1, layers="all-stages")
    assert [a.layer for a in staged.attributions] == ["second.1", "second"]
