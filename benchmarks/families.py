"""Does Grad-CAM work on every family of image classifiers? The smallest model of each, with random weights.

For each model: its last layer is found, the map of its top class has positive evidence, the layer's grid lies over the
picture the right way round, the model is left as it was, and all of it again on an input that is not square.

    python benchmarks/families.py [--only REGEX] [--out TABLE.md]
"""

from __future__ import annotations

import argparse
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

from seewhy import Trace
from seewhy.engine.answers import main_output
from seewhy.engine.call import Call
from seewhy.engine.places.places import find_places, picture_layout
from seewhy.maps.values import statuses
from seewhy.methods import find_flow, shared_pass
from seewhy.methods.catalog import METHODS

SECONDS = 120  # of the processor, for one model
CLASSES = 1000

NO_CLASSIFIER = {
    "hieradet_sam2": "the image encoder of SAM 2: features only",
}

# where the smallest model takes minutes: the same with fewer blocks
FEWER_BLOCKS: dict[str, dict[str, Any]] = {
    "deepseek_vit": {"depth": 2},
    "gemma4_vit": {"depth": 2},
    "qwen3_vit": {"depth": 2},
}
NO_HEAD = ("_enc", "_align")  # how timm names the models of a module that give features

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "ViTConfig": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 192,
    },
    "DeiTConfig": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 192,
    },
    "BeitConfig": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 192,
    },
    "Dinov2Config": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "patch_size": 16,
    },
    "Dinov2WithRegistersConfig": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "patch_size": 16,
    },
    "SwinConfig": {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 3, 6]},
    "Swinv2Config": {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 3, 6]},
    "HieraConfig": {"embed_dim": 24, "depths": [1, 1, 2, 1]},
    "ResNetConfig": {"depths": [1, 1, 2, 1]},
    "RegNetConfig": {},
    "ConvNextConfig": {"depths": [1, 1, 2, 1], "hidden_sizes": [24, 48, 96, 192]},
    "ConvNextV2Config": {"depths": [1, 1, 2, 1], "hidden_sizes": [24, 48, 96, 192]},
    "MobileNetV2Config": {},
    "MobileViTConfig": {"image_size": 256, "initializer_range": 0.2},
    "SegformerConfig": {},
    "PvtV2Config": {},
    "PoolFormerConfig": {"depths": [1, 1, 2, 1]},
    "FocalNetConfig": {"embed_dim": 24, "depths": [1, 1, 2, 1]},
    "CvtConfig": {},
    "LevitConfig": {"initializer_range": 0.1},
}


@dataclass(frozen=True)
class Candidate:
    """A model to look at: `build(height, width)` makes it for that input size, or for its own size without."""

    library: str
    family: str
    name: str
    parameters: int
    size: tuple[int, int]
    build: Callable[..., nn.Module]


@dataclass
class Row:
    """One line of the table."""

    candidate: Candidate
    layer: str = ""
    layout: str = ""
    grid: str = ""
    status: str = ""
    orientation: str = ""
    not_square: str = ""
    seconds: float = 0.0
    note: str = ""
    works: bool = False

    def cells(self) -> list[str]:
        c = self.candidate
        return [
            *(
                c.library,
                c.family,
                c.name,
                f"{c.parameters / 1e6:.1f}M",
                self.layer,
                self.layout,
                self.grid,
            ),
            *(self.status, self.orientation, self.not_square, f"{self.seconds:.1f}", self.note),
        ]


HEAD = [
    *("library", "family", "model", "params", "layer", "layout", "grid"),
    *("status", "orientation", "not square", "seconds", "note"),
]


def timm_candidates(pattern: str) -> Iterator[Candidate | str]:
    """The smallest model of each module of timm, without its toy models; a line where a module has no classifier."""
    for family in timm.list_modules():
        names = [
            n
            for n in timm.list_models(module=family)
            if not n.startswith("test_") and not n.endswith(NO_HEAD)
        ]
        if not re.search(pattern, f"timm {family}"):
            continue
        if family in NO_CLASSIFIER:
            yield f"timm {family}: {NO_CLASSIFIER[family]}"
            continue
        fewer = FEWER_BLOCKS.get(family, {})
        options = {"num_classes": CLASSES, **fewer}
        sized = []
        for name in names:
            module = _on_meta(partial(timm.create_model, name, **options))
            sized.append(
                (
                    sum(p.numel() for p in module.parameters()),
                    name,
                    module.pretrained_cfg["input_size"][1:],
                )
            )
        count, name, size = min(sized)

        def build(*hw: int, name: str = name, options: dict[str, Any] = options) -> nn.Module:
            return timm.create_model(name, **options, **({"img_size": hw} if hw else {}))

        label = name + "".join(f" ({key}={value})" for key, value in fewer.items())
        yield Candidate("timm", family, label, count, size, build)


def torchvision_candidates(pattern: str) -> Iterator[Candidate]:
    """The smallest model of each family of torchvision's classifiers, by the stem of their names."""
    models = torchvision.models
    families: dict[str, list[tuple[int, str]]] = {}
    for name in models.list_models(module=models):
        stem = re.match(r"(?:wide_)?[a-z]+(?:_v\d)?", name)
        assert stem
        if re.search(pattern, f"torchvision {stem[0]}"):
            count = models.get_model_weights(name).DEFAULT.meta["num_params"]
            families.setdefault(stem[0], []).append((count, name))
    for family, sized in families.items():
        count, name = min(sized)
        side = models.get_model_weights(name).DEFAULT.transforms().crop_size[0]

        def build(*hw: int, name: str = name) -> nn.Module:
            if hw:
                raise TypeError("torchvision builds no model for another input size")
            return _torchvision(name)

        yield Candidate("torchvision", family, name, count, (side, side), build)


def _torchvision(name: str) -> nn.Module:
    quiet = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **quiet)


def transformers_candidates(pattern: str) -> Iterator[Candidate]:
    """Small models from configurations of transformers."""
    for config_name, options in TRANSFORMERS.items():
        family = config_name.removesuffix("Config")
        if not re.search(pattern, f"transformers {family}"):
            continue
        side = options.get("image_size", 224)

        def build(
            *hw: int, config_name: str = config_name, options: dict[str, Any] = options
        ) -> nn.Module:
            config = getattr(transformers, config_name)(
                **{**options, **({"image_size": hw} if hw else {})}
            )
            config.num_labels = CLASSES
            return getattr(transformers, config_name.replace("Config", "ForImageClassification"))(
                config
            )

        count = sum(p.numel() for p in build().parameters())
        yield Candidate("transformers", family, config_name, count, (side, side), build)


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def check(candidate: Candidate) -> Row:
    """Builds the model and looks at it; what goes wrong is in the row."""
    row, start = Row(candidate), time.perf_counter()
    try:
        with time_limit(SECONDS):
            torch.manual_seed(0)
            module = candidate.build().train()
            row.note = enliven(module)
            look(row, module, candidate.size)
            row.not_square = look_not_square(row, module)
        row.works = row.status.startswith("ok") and row.orientation.startswith("ok")
        row.works &= row.not_square == "fixed size" or row.not_square.count("ok") == 2
    except Exception as error:
        row.note += (
            f" {type(error).__name__}: {str(error).splitlines()[0][:140] if str(error) else ''}"
        )
    row.seconds = time.perf_counter() - start
    return row


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s of the processor")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def enliven(module: nn.Module) -> str:
    """Gives a head of zeros, which says nothing of any image, random weights; says so."""
    heads = [
        part
        for part in module.modules()
        if isinstance(part, nn.Linear | nn.Conv2d)
        and part.weight.shape[0] == CLASSES
        and not part.weight.any()
    ]
    for head in heads:
        nn.init.normal_(head.weight, std=0.02)
    return "its head is zero, randomised;" if heads else ""


def fingerprint(module: nn.Module) -> list[Any]:
    """What must not change: modes, hooks, parameters, buffers, gradients."""
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    modes = [part.training for part in module.modules()]
    weights = [(k, v._version, float(v.double().sum())) for k, v in module.state_dict().items()]
    return [hooks, modes, weights, [(p.requires_grad, p.grad is None) for p in module.parameters()]]


def picture(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def look(row: Row, module: nn.Module, size: tuple[int, int]) -> None:
    """Fills in the layer, the status of the top class's map (or of the next, where it is empty), the orientation."""
    copy = deepcopy(
        module.train()
    ).double()  # train() empties the caches of tensors that some models keep
    x = picture(size)
    row.layer, row.status = explain(module, x)
    if not row.status.startswith(
        "ok"
    ):  # with BatchNorm as initialised, every place of some models says the same
        row.note += f"{row.status} as initialised, BatchNorm now of noise;"
        settle(module, x)
        row.layer, row.status = explain(module, x)
    with Trace(module, x, layers=[row.layer], grad=False) as trace:
        layout = picture_layout(find_places(module, x), x, row.layer, trace.activations[row.layer])
    row.grid = "x".join(map(str, layout.grid))
    row.layout = layout.kind + (f" after {layout.prefix}" if layout.prefix else "")
    ratio = orientation(copy, row.layer, x)
    if ratio <= 1:  # or the picture is lost on the way to the layer
        settle(copy, x)
        ratio = orientation(copy, row.layer, x)
    row.orientation = f"{'ok' if ratio > 1 else 'WRONG'} {ratio:.3g}x"


def explain(module: nn.Module, x: Tensor) -> tuple[str, str]:
    """The layer that is found, and the status of Grad-CAM's map of the top class or of the next that is not empty."""
    before = fingerprint(module)
    layer = find_flow(module, x).chosen[-1]
    results = shared_pass(
        Call(module), x, methods=[METHODS["grad_cam"]], targets=["top5"], layers=[layer]
    ).results
    if fingerprint(module) != before:
        raise AssertionError("the model is not as it was")
    found = [statuses(result.map)[0] for result in results]
    rank = found.index("ok") if "ok" in found else 0
    return layer, found[rank] + (f" (rank {rank + 1}; {found[0]} above)" if rank else "")


def orientation(module: nn.Module, layer: str, x: Tensor) -> float:
    """Changes each quarter of the picture in turn: the same quarter of the layer's grid changes most.

    Knows nothing of layouts but the grid that it tests. Gives the change there over that of the next quarter, in the
    worst of the four; each quarter of the grid is measured against its own mean change, since a net of random weights
    may be livelier in one. The module is in float64: with such weights the picture's part in the last layer can be
    smaller than the rounding of float32.
    """
    height, width = x.shape[2] // 2, x.shape[3] // 2
    other = picture((x.shape[2], x.shape[3]), seed=1)
    changed = x.repeat(5, 1, 1, 1)
    for variant, (rows, columns) in zip(changed[1:], _quarters(height, width), strict=True):
        variant[:, rows, columns] = other[0, :, rows, columns]
    with Trace(module, changed, layers=[layer], grad=False) as trace:
        raw = trace.activations[layer]
    grid = picture_layout(find_places(module, changed), changed, layer, raw).to_grid(raw)
    change = (grid[1:] - grid[:1]).abs().mean(1)  # (4 changed, h, w)
    h, w = change.shape[1] // 2, change.shape[2] // 2
    quarters = torch.stack(
        [change[:, rows, columns].mean((1, 2)) for rows, columns in _quarters(h, w)], 1
    )
    quarters = quarters.clamp(
        min=1e-9 * float(quarters.max())
    )  # out of some quarters' sight nothing changes
    relative = quarters / quarters.log().mean(0).exp()
    return float((relative.diagonal() / (relative - relative.diagonal().diag()).amax(1)).min())


def settle(module: nn.Module, x: Tensor) -> None:
    """Gives BatchNorm the statistics of four pictures of noise."""
    modes = [part.training for part in module.modules()]
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()
            part.momentum = None  # the plain mean
    noise = torch.cat([picture((x.shape[2], x.shape[3]), seed) for seed in range(10, 14)])
    with torch.no_grad():
        module(noise.to(next(module.parameters())))
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode


def _quarters(height: int, width: int) -> list[tuple[slice, slice]]:
    """Top left, top right, bottom left, bottom right."""
    return [
        (rows, columns)
        for rows in (slice(None, height), slice(-height, None))
        for columns in (slice(None, width), slice(-width, None))
    ]


def look_not_square(square: Row, module: nn.Module) -> str:
    """The same on a picture wider or higher than the other way, if the model takes one, as it is or built for it."""
    candidate = square.candidate
    height, width = candidate.size
    sizes = [(height, width * 5 // 7 // cell * cell) for cell in (32, 14, 48)]
    for build in (lambda *_: module, candidate.build):
        for size in sizes:
            try:
                torch.manual_seed(0)
                other = build(*size).eval()
                with torch.no_grad():
                    assert main_output(other(picture(size))).shape == (1, CLASSES)
            except Exception:  # whatever a model says of a size it does not take
                continue
            enliven(other)
            row = Row(candidate)
            look(row, other, size)
            if int(row.grid.split("x")[0]) > int(square.grid.split("x")[0]):
                return f"WRONG stage: {row.layer} {row.grid}"
            return f"{row.grid} {row.status}, {row.orientation}"
    return "fixed size"


def markdown(rows: list[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="families whose 'library family' this expression finds"
    )
    parser.add_argument("--out", type=Path, help="write the table as markdown")
    parser.add_argument(
        "--threads", type=int, default=2, help="1 where other programs want the processor too"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    rows: list[Row] = []
    skipped: list[str] = []
    for source in (timm_candidates, torchvision_candidates, transformers_candidates):
        for candidate in source(args.only):
            if isinstance(candidate, str):
                skipped.append(candidate)
                continue
            rows.append(check(candidate))
            print("works" if rows[-1].works else "FAILS", " | ".join(rows[-1].cells()), flush=True)
    works = sum(row.works for row in rows)
    last = f"works {works} of {len(rows)} ({100 * works / max(len(rows), 1):.1f} percent)"
    print(*(f"skipped {line}" for line in skipped), last, sep="\n")
    if args.out:
        notes = "".join(f"- skipped {line}\n" for line in skipped)
        args.out.write_text(f"{markdown(rows)}\n\n{notes}\n{last}\n")


if __name__ == "__main__":
    main()
