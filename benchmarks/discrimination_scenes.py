"""Do maps tell the classes of one picture apart, on networks trained on pictures of several digits, transformers too?

    python benchmarks/discrimination_scenes.py [--nets vit_stem swin_stem lite0_gap ...] [--only REGEX] [--pictures N]
                                               [--out FOLDER] [--steps N] [--slow] [--alone]

Networks of several labels a picture, each a sigmoid: EfficientNet-Lite0 (`seewhy train`) and a ResNet of 10 layers from
random weights, under the heads GAP, GMP and Oquab's; a ViT read at its class token and a Swin for 64 pixels, whose
patches a few convolutions embed ("_stem"; with linear patches, "vit" and "swin", they learn far more slowly). They are
trained once and kept in the folder. For the first half of their training all but EfficientNet-Lite0 have a second
loss, which falls to nothing: each place of the last features says which digit lies on it. GMP's and Oquab's head begin
with GAP's backbone, without it.

Scored are pictures of the split "test" that show two classes or more which the network finds (a sigmoid above .5). Each
of those classes is explained; for each two of them

- share: the map's positive part on the digits of its own class, of that on its own and the other's (blind: .50);
- r: Pearson's correlation of the two maps' positive parts;

and for each map pixel AP on its class's digits and whether its peak lies on one, or as near as 15 of 224 pixels are.
With --alone, of pictures of which one class is found, there are the last two columns. Before each table stands the
median share of the relevance that started which class token, registers and positions keep from the input.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

import seewhy
from seewhy.data import Preprocess, Scenes
from seewhy.maps.values import resize
from seewhy.models.networks.heads import build
from seewhy.models.training import train

SMALL, LARGE = 64, 96
COLUMNS = ("share", "r", "AP", "pointing")
BATCH, CLASSES, RIVALS = 32, 10, 5
LABELS = tuple(str(digit) for digit in range(CLASSES))
STEPS = {"vit": 6000, "vit_stem": 2000, "swin": 6000, "swin_stem": 2500, "resnet_gap": 700}
HEADS_ALONE = 250  # steps of a head that begins with the backbone of another
NETS = (
    *("lite0_gap", "lite0_oquab", "lite0_gmp", "resnet_gap", "resnet_oquab", "resnet_gmp"),
    *("vit_stem", "swin_stem"),
)


# ---------------------------------------------------------------- networks


class Stem(nn.Module):
    """Convolutions of stride 2 in place of a transformer's linear patches, after Xiao et al., NeurIPS 2021."""

    def __init__(
        self,
        *,
        img_size: int = SMALL,
        patch_size: int,
        in_chans: int = 3,
        embed_dim: int,
        norm_layer: Callable[[int], nn.Module] | None = None,
        output_fmt: str | None = None,
        **others: object,
    ) -> None:
        super().__init__()
        halvings = int(math.log2(patch_size))
        widths = [max(16, embed_dim // 2 ** (halvings - 1 - i)) for i in range(halvings)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([in_chans, *widths]):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU()]
        self.convs = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, 1))
        self.norm = nn.Identity() if norm_layer is None else norm_layer(embed_dim)
        self.grid_size = (SMALL // patch_size,) * 2
        self.num_patches, self.patch_size = self.grid_size[0] ** 2, (patch_size,) * 2
        self.channels_last = output_fmt == "NHWC"

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> tokens, as timm's own has them."""
        grid = self.convs(x).permute(0, 2, 3, 1)
        return self.norm(grid if self.channels_last else grid.flatten(1, 2))


def untrained(kind: str) -> nn.Module:
    """A network for 64 pixels, with random weights."""
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    common: dict[str, Any] = {"img_size": SMALL, "num_classes": CLASSES}
    if kind.endswith("_stem"):
        common["embed_layer"] = Stem
    if kind.startswith("swin"):
        sizes = {"patch_size": 4, "embed_dim": 48, "window_size": 4, "mlp_ratio": 2}
        return SwinTransformer(depths=(2, 2, 2), num_heads=(2, 4, 8), **sizes, **common)
    if kind.startswith("vit"):
        sizes = {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3, "mlp_ratio": 3}
        return VisionTransformer(**sizes, **common)
    pooling = kind.partition("_")[2]
    width = {"adaptation": 256} if pooling == "oquab" else {"units": 256}
    architecture = {"backbone": "timm:resnet10t", "pooling": pooling, "classes": CLASSES}
    return build({**architecture, "size": (SMALL, SMALL), "stages": 3, **width})


def parts_of(net: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """What gives a network's last features, and what makes scores of them."""
    if hasattr(net, "backbone"):
        return net.backbone, net.head
    return net.forward_features, net.forward_head


def places_of(net: nn.Module, features: Tensor) -> Tensor:
    """The last features as (N, places, C), without a class token."""
    if hasattr(net, "backbone"):
        return features.flatten(2).transpose(1, 2)
    return features.flatten(1, 2) if features.ndim == 4 else features[:, net.num_prefix_tokens :]


def drawn(data: Scenes, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (N, 3, H, W) in [-1, 1], which classes they show (N, K) and where (N, K, H, W)."""
    examples = [data[i] for i in indices]
    pictures = np.stack([np.asarray(example.photo) for example in examples])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    regions = torch.zeros(len(examples), CLASSES, data.size, data.size)
    for region, example in zip(regions, examples, strict=True):
        assert example.truth is not None
        assert example.truth.masks is not None
        for label, mask in zip(example.truth.labels.tolist(), example.truth.masks, strict=True):
            region[label] += mask
    return x, (regions.flatten(2).amax(2) > 0).float(), regions


def learn(net: nn.Module, steps: int, *, seen: bool) -> None:
    """Trains a network on new scenes in each step; `seen`: its backbone has learnt already."""
    torch.manual_seed(0)
    data = Scenes(steps * BATCH, size=SMALL, multi_label=True, seed=int(seen))
    features_of, scores_of_features = parts_of(net)
    channels = places_of(net, features_of(torch.zeros(2, 3, SMALL, SMALL))).shape[2]
    of_places = nn.Linear(channels, CLASSES)
    parameters = [*net.parameters(), *of_places.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3 if seen else 1.5e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1, (n + 1) / 100) * (1 + math.cos(math.pi * n / steps)) / 2
    )
    for step in range(steps):
        x, shown, regions = drawn(data, range(step * BATCH, (step + 1) * BATCH))
        features = features_of(x)
        loss = F.binary_cross_entropy_with_logits(scores_of_features(features), shown)
        weight = 0 if seen else max(0, 4 - 8 * step / steps)
        if weight:
            loss = loss + weight * _loss_of_places(of_places(places_of(net, features)), regions)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()


def _loss_of_places(scores: Tensor, regions: Tensor) -> Tensor:
    """Of scores (N, places, K), where a digit counts from a tenth of the place."""
    side = math.isqrt(scores.shape[1])
    covered = F.avg_pool2d(regions, regions.shape[-1] // side).flatten(2).transpose(1, 2)
    return F.binary_cross_entropy_with_logits(scores, (covered > 0.1).float())


def network(kind: str, folder: Path, steps: int | None) -> tuple[seewhy.Model, int]:
    """A trained network, and the size of its pictures; what the folder has is read."""
    if kind.startswith("lite0"):
        return _trained_by_the_house(kind.partition("_")[2], folder / kind), LARGE
    net, weights = untrained(kind), folder / f"{kind}.pt"
    if weights.exists():
        net.load_state_dict(torch.load(weights))
    else:
        seen = kind in ("resnet_oquab", "resnet_gmp")
        if seen:
            other, _ = network("resnet_gap", folder, steps)
            net.backbone.load_state_dict(other.module.backbone.state_dict())
        learn(net, steps or (HEADS_ALONE if seen else STEPS[kind]), seen=seen)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), weights)
    size, half = (SMALL, SMALL), (0.5,) * 3
    preprocess = Preprocess(size=size, resize=size, mean=half, std=half, interpolation="bilinear")
    model = seewhy.wrap(net.eval(), preprocess=preprocess, labels=LABELS, multi_label=True)
    return model, SMALL


def _trained_by_the_house(pooling: str, folder: Path) -> seewhy.Model:
    learn_from, held_back = (
        Scenes(count, size=LARGE, multi_label=True, split=split)
        for count, split in ((1500, "train"), (300, "val"))
    )
    return train(learn_from, val=held_back, pooling=pooling, epochs=6, out=folder).model


# ---------------------------------------------------------------- starts of relevance


@dataclass(frozen=True)
class Start:
    """A start of relevance as weights on logits: the target's logit less those of its rivals.

    Attributes:
        rivals: of the other logits' best five "softmax", or "presence" (their sigmoids, over their sum where that is
            above 1); or "found": those whose sigmoid is above .5, all alike.
        elsewhere: a rival counts as far as its map of the last layer lies elsewhere than the target's.
    """

    rivals: str
    elsewhere: bool = True

    def weights(self, logits: Tensor, chosen: Sequence[int], maps: Tensor) -> Tensor:
        """From logits (N, K), a class for each and maps of all classes (N, K, places)."""
        rows = torch.arange(len(logits))
        own = F.one_hot(torch.tensor(chosen), logits.shape[1]).bool()
        others = logits.masked_fill(own, -torch.inf)
        if self.rivals == "found":
            found = (others > 0).float()
            q = found / found.sum(1, keepdim=True).clamp(min=1)
        else:
            best = others.topk(RIVALS, 1)
            q = best.values.softmax(1)
            if self.rivals == "presence":
                q = best.values.sigmoid()
                q = q / q.sum(1, keepdim=True).clamp(min=1)
            q = torch.zeros_like(logits).scatter(1, best.indices, q)
        if self.elsewhere:
            positive = maps.clamp(min=0)
            q = q * (1 - F.cosine_similarity(positive[rows, chosen][:, None], positive, dim=2))
        return own.float() - q


def maps_of_classes(model: seewhy.Model, x: Tensor, layer: str) -> Tensor:
    """Relevance of a layer's places for all classes, (N, K, places)."""
    method = seewhy.METHODS["layer_relevance"]
    maps = [method(model, x, target=[k] * len(x), layer=layer, seed="lrp") for k in range(CLASSES)]
    return torch.stack(maps, 1).flatten(2).float()


# ---------------------------------------------------------------- scoring


@dataclass
class Asked:
    """Pictures and the classes that are explained, a row for each: picture, class, and where each class lies."""

    x: Tensor
    pictures: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    regions: Tensor = field(default_factory=lambda: torch.zeros(0))

    def rows(self) -> Iterator[tuple[Tensor, list[int], slice]]:
        """Batches of pictures and classes."""
        for start in range(0, len(self.classes), BATCH):
            part = slice(start, start + BATCH)
            yield self.x[self.pictures[part]], self.classes[part], part


def asked_of(model: seewhy.Model, data: Scenes, most: int, *, alone: bool) -> Asked:
    """The first pictures that show two classes or more that the network finds; or one, which is alone."""
    asked, shown_regions, start = Asked(torch.zeros(0)), [], 0
    pictures: list[Tensor] = []
    while len(pictures) < most and start < len(data):
        indices = range(start, min(start + BATCH, len(data)))
        examples = [data[i] for i in indices]
        x, _ = model.preprocess.batch([example.photo for example in examples])
        _, shown, regions = drawn(data, indices)
        with torch.no_grad():
            found = (model(x) > 0) & (shown > 0)
        for one, classes, where in zip(x, found, regions, strict=True):
            enough = classes.sum() == 1 if alone else classes.sum() > 1
            if enough and len(pictures) < most:
                asked.classes += classes.nonzero()[:, 0].tolist()
                asked.pictures += [len(pictures)] * int(classes.sum())
                pictures.append(one)
                shown_regions.append(where)
        start += BATCH
    asked.x, asked.regions = torch.stack(pictures), torch.stack(shown_regions)
    return asked


def scores_of(maps: Tensor, asked: Asked) -> dict[str, float]:
    """The columns, of maps (rows, h, w)."""
    heat = resize(maps.float(), tuple(asked.regions.shape[-2:]))
    found: dict[str, list[float]] = {column: [] for column in COLUMNS}
    for one, picture, label in zip(heat, asked.pictures, asked.classes, strict=True):
        region = asked.regions[picture, label].flatten() > 0
        flat = one.flatten()
        found["AP"].append(float(average_precision_score(region.numpy(), flat.numpy())))
        found["pointing"].append(float(_widened(asked.regions[picture, label])[flat.argmax()]))
    for _, rows in itertools.groupby(range(len(heat)), lambda row: asked.pictures[row]):
        for one, other in itertools.permutations(rows, 2):
            share, r = _told_apart(heat, asked, one, other)
            found["share"].append(share)
            found["r"].append(r)
    return {column: float(np.mean(values)) for column, values in found.items() if values}


def _widened(region: Tensor) -> Tensor:
    """A region (H, W) and what is near it, flat."""
    near = round(15 / 224 * region.shape[-1])
    return F.max_pool2d(region[None], 2 * near + 1, 1, near).flatten() > 0


def _told_apart(heat: Tensor, asked: Asked, one: int, other: int) -> tuple[float, float]:
    """The share of one row's map on its own class's digits, of those on its own and another's; r of both maps."""
    regions = asked.regions[asked.pictures[one]]
    positive = heat[one].clamp(min=0)
    own, others = (
        float((positive * (regions[asked.classes[row]] > 0)).sum()) for row in (one, other)
    )
    share = own / (own + others) if own + others else 0.5
    pair = torch.stack([positive.flatten(), heat[other].clamp(min=0).flatten()])
    r = float(torch.corrcoef(pair)[0, 1])
    return share, 0.0 if math.isnan(r) else r


# ---------------------------------------------------------------- methods


@dataclass(frozen=True)
class Row:
    """A method, as it is called."""

    method: str
    layer: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    start: Start | None = None
    magnitude: bool = False
    blur: float | None = None  # pixels

    def __str__(self) -> str:
        said = [self.method, self.layer or "", *(f"{k}={v}" for k, v in self.options.items())]
        if self.start is not None:
            said.append(f"{self.start.rivals}{', elsewhere' if self.start.elsewhere else ''}")
        said.append("blurred" if self.blur else "")
        return " ".join(filter(None, said))

    def maps(self, model: seewhy.Model, asked: Asked, logits: Tensor, classes: Tensor) -> Tensor:
        """(rows, h, w)."""
        made = []
        for x, chosen, part in asked.rows():
            target: Any = chosen
            if self.start is not None:
                weights = self.start.weights(logits[part], chosen, classes[part])
                target = _weighted_sum(weights)
            made.append(
                seewhy.METHODS[self.method](
                    model, x, target=target, layer=self.layer, **self.options
                )
            )
        maps = torch.cat(made).float()
        maps = maps.abs() if self.magnitude else maps
        return gaussian_blur(maps[:, None], [13, 13], self.blur)[:, 0] if self.blur else maps


def _weighted_sum(weights: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda output: (output * weights).sum(1)


def grid_layers(kind: str) -> list[str | None]:
    """The layers that are read of a network, None for a method's own choice."""
    if kind.startswith("vit"):
        return [None, "patch_embed", "norm_pre", *(f"blocks.{i}" for i in range(3))]
    return [None, "patch_embed", "layers.0", "layers.1"] if kind.startswith("swin") else [None]


def rows_for(kind: str, *, slow: bool) -> list[Row]:
    """What is scored on a network."""
    lrp = {"seed": "lrp"}
    starts = [None, *(Start(rivals) for rivals in ("softmax", "presence", "found"))]
    starts += [Start("softmax", elsewhere=False), Start("found", elsewhere=False)]
    rows = [Row(name) for name in ("grad_cam", "hires_cam", "layer_cam", "relevance_cam")]
    rows += [Row("hires_cam", layer) for layer in grid_layers(kind)[1:]]
    early = grid_layers(kind)[:3:2]  # the default, and the first that has all tokens
    rows += [Row("layer_relevance", n, lrp) for n in grid_layers(kind) if n not in early]
    rows += [Row("layer_relevance", layer, lrp, start) for layer in early for start in starts]
    rows += [Row("layer_relevance", layer, {"seed": "elsewhere"}) for layer in early]
    for composite in ("epsilon_gamma", "conserving", "attn_lrp"):
        options = {**lrp, "composite": composite}
        rows += [Row("lrp", None, options, start, blur=1.5) for start in (None, Start("softmax"))]
    rows += [Row("saliency", magnitude=True, blur=1.5), Row("input_x_gradient", blur=1.5)]
    if slow:
        rows += [Row("integrated_gradients", blur=1.5), Row("occlusion")]
        rows += [Row("rise", options={"samples": 500, "seed": 0})]
    return rows


def asked_and_known(
    model: seewhy.Model, size: int, pictures: int, *, alone: bool
) -> tuple[Asked, Tensor, Tensor, str]:
    """What is asked, for each row the logits and the maps of all classes, and the layer of these."""
    data = Scenes(20 * pictures, size=size, multi_label=True, split="test")
    asked = asked_of(model, data, pictures, alone=alone)
    layer = seewhy.explain(model, asked.x[:1], methods="grad_cam", targets=0)[0].layer
    assert layer is not None
    parts = asked.x[asked.pictures].split(BATCH)
    with torch.no_grad():
        logits = torch.cat([model(x) for x in parts])
    return asked, logits, torch.cat([maps_of_classes(model, x, layer) for x in parts]), layer


def kept_words(model: seewhy.Model, asked: Asked) -> str:
    """What a transformer's own vectors keep of the relevance that goes to the input, on average."""
    shares: dict[str, list[float]] = {}
    for x, chosen, _ in asked.rows():
        for one, label in zip(x, chosen, strict=True):
            at_the_score = {"lrp": {"seed": "lrp"}}
            asked_of_lrp = {"methods": "lrp", "targets": label, "options": at_the_score}
            (a,) = seewhy.explain(model, one[None], **asked_of_lrp)
            account = a.facts[0]["relevance"]
            for name, kept in account["kept_by"].items():
                shares.setdefault(name, []).append(kept / account["started"])
    return ", ".join(f"{name} {statistics.median(each):.2f}" for name, each in shares.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=(*NETS, "vit", "swin"), default=NETS)
    parser.add_argument("--only", default="", help="rows that this finds")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("discrimination-scenes"))
    parser.add_argument("--steps", type=int, help="in place of the default")
    parser.add_argument("--alone", action="store_true", help="pictures of which one class is found")
    parser.add_argument("--slow", action="store_true", help="sampled methods too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for kind in args.nets:
        model, size = network(kind, args.out, args.steps)
        asked, logits, classes, layer = asked_and_known(
            model, size, args.pictures, alone=args.alone
        )
        print(
            f"\n{kind}, {len(asked.classes)} maps, rivals' maps at {layer}: {kept_words(model, asked)}"
        )
        print(f"| method | {' | '.join(COLUMNS)} | s |\n|---|{'---|' * (len(COLUMNS) + 1)}")
        for row in rows_for(kind, slow=args.slow):
            if not re.search(args.only, str(row)):
                continue
            start = time.process_time()
            found = scores_of(row.maps(model, asked, logits, classes), asked)
            values = " | ".join(
                f"{found[column]:.3f}" if column in found else "" for column in COLUMNS
            )
            print(f"| {row} | {values} | {time.process_time() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
