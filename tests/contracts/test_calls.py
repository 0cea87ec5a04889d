"""Every function that takes a model answers about the output that is meant, and gives each image its own rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.call import Call
from seewhy.engine.masking import Zeros, masked_scores
from seewhy.engine.masking.masks import StepMasks
from seewhy.engine.targets.classes import Logit
from seewhy.errors import ArgumentTypeError, InputError
from seewhy.influence import InfluenceIndex, match_regions
from seewhy.methods.catalog import METHODS, find_method
from seewhy.models.training.features import pooled_features
from tiny_models import pictures, randomised

pytestmark = [
    pytest.mark.filterwarnings("ignore:LIME of .*not locally linear"),
    pytest.mark.filterwarnings("ignore:the model has not converged"),
    pytest.mark.filterwarnings("ignore:.*have no training example"),
]
FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 3},
    "integrated_gradients": {"steps": 3},
    "rise": {"samples": 32, "cells": 3},
    "lime": {"samples": 40, "superpixels": "slic"},
}
HEADS = ("logits", "cls")
SIZE = 24


class TwoHeads(nn.Module):
    """Two heads at two depths, of which the first is what seewhy would take by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.aux, self.head = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.stem(x)
        return {"logits": self.aux(h.mean((2, 3))), "cls": self.head(self.late(h).mean((2, 3)))}


class OneHead(nn.Module):
    """The same with one head alone: the oracle of every answer about that head."""

    def __init__(self, net: TwoHeads, head: str) -> None:
        super().__init__()
        self.net, self.read = net, head

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)[self.read]
        return answer


class WithRows(nn.Module):
    """A picture, and a row of numbers that belongs to it."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.meta, self.fc = nn.Linear(4, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor, scale: float = 1.0, *, meta: Tensor) -> Tensor:
        out: Tensor = self.fc(self.stage(x).mean((2, 3)) * torch.tanh(self.meta(meta))) * scale
        return out


def prepared(module: nn.Module, head: str | None = None) -> seewhy.Model:
    how = seewhy.Preprocess((SIZE, SIZE), SIZE, (0.5,) * 3, (0.1,) * 3, "bilinear")
    read = None if head is None else lambda answer: answer[head]
    return seewhy.wrap(module, preprocess=how, output=read, labels=list("abcd"))


def index_of(model: Any, solver: str = "last_layer") -> InfluenceIndex:
    return InfluenceIndex.fit(
        model, (pictures(12, SIZE), torch.arange(12) % 4), solver=solver, l2=0.1
    )


def chosen_layers(model: Any, x: Tensor) -> Tensor:
    cells = {"late": 2.0, "stem": 1.0}
    found = seewhy.list_layers(model, x).chosen
    return torch.tensor([cells[name.removeprefix("net.")] for name in found])


def matched(model: Any, x: Tensor) -> Tensor:
    found = match_regions(index_of(model), x[:1], [0, 3])
    return torch.stack([found.test.map, found.train.map])


def evaluated(model: Any, x: Tensor) -> Tensor:
    rows = seewhy.evaluate(model, x, metrics=["insertion", "infidelity"], chance=())
    return torch.tensor([float(row.result.mean) for row in rows])


def localised(model: Any, x: Tensor) -> Tensor:
    data = seewhy.data.find_data("scenes:size=32,count=6", split="test")
    classes = {name: i % 4 for i, name in enumerate(data.classes)}
    rows = seewhy.evaluate_localization(
        model, data, metrics=["pointing_game", "pixel_ap"], classes=classes, chance=()
    )
    return torch.tensor([float(row.result.mean) for row in rows])


def features(model: Any, x: Tensor) -> Tensor:
    return pooled_features(model, seewhy.data.find_data("scenes:size=32,count=4", split="test"))


def metric(model: Any, x: Tensor) -> Tensor:
    deletion = seewhy.metrics.Deletion()
    deletion.update(
        torch.arange(SIZE * SIZE).float().view(1, SIZE, SIZE).expand(len(x), -1, -1), model, x, 1
    )
    return torch.as_tensor(deletion.compute().values)


QUESTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "explain": lambda model, x: seewhy.explain(model, x, targets=["top2"], batch_size=2)[1].map,
    "predictions": lambda model, x: torch.tensor(
        [p[0].probability for p in seewhy.explain(model, x).predictions]
    ),
    "list_layers": chosen_layers,
    "evaluate": evaluated,
    "metric": metric,
    "evaluate_localization": localised,
    "pooled_features": features,
    **{
        f"influence {solver}": lambda model, x, solver=solver: index_of(model, solver).scores(x)
        for solver in (
            "last_layer",
            "gradient_dot",
            "ekfac",
            "trak",
            "loss",
            "embedding",
            "representer",
        )
        if solver in seewhy.influence.SOLVERS
    },
    "influence of a target": lambda model, x: index_of(model).scores(x, target=2),
    "self-influence": lambda model, x: index_of(model).self_influence(),
    "influence regions": matched,
    **{
        name: lambda model, x, name=name: find_method(name)(model, x, 2, **FAST.get(name, {}))
        for name in [*METHODS, "smooth:grad_cam"]
    },
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("head", HEADS)
def test_the_output_that_is_meant(question: str, head: str) -> None:
    net, x = randomised(TwoHeads()), pictures(4, SIZE)
    ask = QUESTIONS[question]
    other = next(each for each in HEADS if each != head)
    with_other = ask(
        prepared(net, other), x
    )  # whatever is remembered of the model must not be taken for this head
    found, expected = ask(prepared(net, head), x), ask(prepared(OneHead(net, head)), x)
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()) + 1e-9
    )
    if question not in ("evaluate_localization", "pooled_features"):  # may be the same by chance
        assert with_other.shape != found.shape or not torch.allclose(with_other, found)


@pytest.mark.parametrize("name", [name for name in [*METHODS, "smooth:grad_cam"] if name != "cam"])
def test_each_image_has_its_row(name: str) -> None:
    net, x, meta = randomised(WithRows()), pictures(3, SIZE), torch.randn(3, 4)
    options = FAST.get(name, {})
    found = find_method(name)(net, x, 1, inputs={"meta": meta}, args=[2.0], **options)
    for i in range(3):
        one = {"meta": meta[i : i + 1]}
        alone = find_method(name)(net, x[i : i + 1], 1, inputs=one, args=[2.0], **options)
        torch.testing.assert_close(
            alone[0], found[i], rtol=1e-4, atol=2e-5 * float(found[i].abs().max()) + 1e-12
        )


@pytest.mark.parametrize("rows", [torch.Tensor.numpy, torch.Tensor.tolist], ids=["array", "list"])
def test_rows_in_any_container(rows: Callable[[Tensor], Any]) -> None:
    net, x, meta = randomised(WithRows()), pictures(3, SIZE), torch.randn(3, 4)

    class Converts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, *, meta: Any) -> Tensor:
            return self.net(x, meta=torch.as_tensor(meta, dtype=torch.float32))  # type: ignore[no-any-return]

    found = seewhy.methods.grad_cam(
        Converts(), x, 1, layer="net.stage", inputs={"meta": rows(meta)}
    )
    torch.testing.assert_close(found, seewhy.methods.grad_cam(net, x, 1, inputs={"meta": meta}))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_rows_are_cut_with_the_photos(batch_size: int) -> None:
    net, x, meta = randomised(WithRows()), pictures(5, SIZE), torch.randn(5, 4)
    expected = seewhy.methods.layer_relevance(net, x, 1, inputs={"meta": meta})
    found = seewhy.explain(net, x, targets=[1], inputs={"meta": meta}, batch_size=batch_size)[0].map
    torch.testing.assert_close(found, expected)
    scored = [
        seewhy.evaluate(
            net,
            x,
            metrics=["deletion"],
            targets=[1],
            inputs={"meta": meta},
            batch_size=n,
            chance=(),
        )
        for n in (batch_size, 5)
    ]
    assert scored[0][0].result.mean == pytest.approx(scored[1][0].result.mean, rel=1e-4)


def test_rows_of_photos_that_cannot_be_read_are_left_out(tmp_path: Any) -> None:
    net, meta = randomised(WithRows()), torch.randn(3, 4)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i in (0, 2):
        pixels = (pictures(1, SIZE, seed=i)[0] * 40 + 128).clamp(0, 255).byte()
        seewhy.data.tensor_to_photos(pixels[None].float(), None)[0].save(paths[i])
    paths[1].write_bytes(b"no picture")
    model = prepared(net)
    model = seewhy.wrap(net, preprocess=model.preprocess)
    parts = list(
        seewhy.methods.explain.explain_batches(
            model, paths, targets=[[0, 1, 2]], inputs={"meta": meta}, on_bad_image=lambda *_: None
        )
    )
    for i, part in ((0, 0), (2, 1)):
        alone = seewhy.explain(model, paths[i], targets=[i], inputs={"meta": meta[i : i + 1]})
        torch.testing.assert_close(parts[0][0].map[part], alone[0].map[0], rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_one_line() -> None:
    net, x, meta = randomised(WithRows()), pictures(3, SIZE), torch.randn(3, 4)
    ask = seewhy.methods.grad_cam
    with pytest.raises(
        InputError, match=r"inputs\['meta'\] has 2 rows for 3 images; give one for each"
    ):
        ask(net, x, 1, inputs={"meta": meta[:2]})
    with pytest.raises(InputError, match=r"inputs\['meta'\] has 2 rows for 3 images"):
        seewhy.explain(net, x, inputs={"meta": meta[:2]}, batch_size=2)
    with pytest.raises(InputError, match=r"'meta' is given in inputs= and in kwargs="):
        ask(net, x, 1, inputs={"meta": meta}, kwargs={"meta": meta})
    with pytest.raises(
        ArgumentTypeError, match=r"inputs\['meta'\] is a float, which has no row for each image"
    ):
        ask(net, x, 1, inputs={"meta": 2.0})
    with pytest.raises(
        InputError, match=r"WithRows cannot be called so: .*'meta'; give what it takes .* inputs="
    ):
        seewhy.list_layers(net, x)
    assert seewhy.list_layers(net, x, inputs={"meta": meta}).chosen == ("stage",)


def test_masked_pictures_have_the_rows_of_their_image() -> None:
    net, x, meta = randomised(WithRows()), pictures(2, SIZE), torch.randn(2, 4)
    call = Call(net, inputs={"meta": meta})
    order = torch.arange(SIZE * SIZE).view(SIZE, SIZE)
    masks = [StepMasks(order, steps) for steps in ([0, 100], [0, 50, 200])]
    for chunk in masked_scores(call, x, masks, [Logit(1)], baseline=Zeros()):
        shown = (
            masks[chunk.image].render(chunk.start, chunk.stop, x.device)[:, None] * x[chunk.image]
        )
        expected = net(shown, meta=meta[chunk.image].expand(len(shown), -1))[:, 1]
        torch.testing.assert_close(
            chunk.scores[:, 0].float(), expected.detach(), rtol=1e-4, atol=1e-6
        )


def test_a_call_is_taken_wherever_a_model_is() -> None:
    net, x, meta = randomised(WithRows()), pictures(3, SIZE), torch.randn(3, 4)
    given: dict[str, Any] = {
        "args": [2.0],
        "inputs": {"meta": meta},
        "output": lambda out: out[:, 1:],
    }
    call = seewhy.Call(net, **given)
    asked: list[Callable[..., Any]] = [
        lambda model, **how: seewhy.methods.grad_cam(model, x, 1, **how),
        lambda model, **how: seewhy.explain(model, x, targets=[1], batch_size=2, **how)[0].map,
        lambda model, **how: seewhy.evaluate(model, x, metrics="deletion", **how)[0].result.values,
        lambda model, **how: seewhy.list_layers(model, x, **how).chosen,
        lambda model, **how: seewhy.Trace(model, x, layers=["stage"], **how).call.answer(x),
    ]
    for ask in asked:
        found, expected = ask(call), ask(net, **given)
        assert (
            found == expected
            if isinstance(found, tuple)
            else torch.equal(*map(torch.as_tensor, (found, expected)))
        )


class Regions(nn.Module):
    """Scores at each place of a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.stage, self.head = (
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.stage(x))
        return scores


TARGETS: dict[str, tuple[Callable[[], nn.Module], str, Callable[[slice], Any]]] = {
    "an embedding": (
        TwoHeads,
        "late",
        lambda rows: seewhy.targets.EmbeddingSimilarity(EMBEDDINGS[rows]),
    ),
    "a region": (
        Regions,
        "stage",
        lambda rows: seewhy.targets.SegmentationRegion(1, REGIONS[rows]),
    ),
    "a class": (TwoHeads, "late", lambda rows: CLASSES[rows]),
}
EMBEDDINGS = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
REGIONS = (torch.rand(5, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) > 0.5).float()
CLASSES = [3, 0, 1, 2, 3]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", ["grad_cam", "lrp", "occlusion"])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_targets_with_a_row_for_each_image_are_cut_with_the_photos(
    kind: str, method: str, batch_size: int
) -> None:
    make, layer, target = TARGETS[kind]
    net, x = randomised(make()), pictures(5, SIZE)
    asked: dict[str, Any] = {"methods": method, "layers": layer}
    asked |= {"output": lambda out: out["cls"]} if make is TwoHeads else {}
    found = seewhy.explain(net, x, targets=[target(slice(None))], batch_size=batch_size, **asked)[
        0
    ].map
    for i in range(5):
        alone = seewhy.explain(net, x[i : i + 1], targets=[target(slice(i, i + 1))], **asked)[
            0
        ].map[0]
        torch.testing.assert_close(
            found[i], alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()) + 1e-12
        )
