"""The facade: photos in, an explanation out, whatever the batch size; what it writes; what it says when it cannot."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import (
    ArgumentTypeError,
    ImageError,
    InputError,
    LayerError,
    SeewhyError,
    TargetError,
)
from seewhy.maps import values as maps
from seewhy.methods.explain import explain_batches
from seewhy.methods.outcome import join
from seewhy.methods.photos import Source
from tiny_models import TinyCNN, pictures, randomised


@pytest.fixture(scope="module")
def model() -> seewhy.Model:
    return seewhy.load_model()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    sources = {
        "cat": skimage.data.chelsea(),
        "coffee": skimage.data.coffee(),
        "rocket": skimage.data.rocket(),
    }
    for name, picture in sources.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def explanation(model: seewhy.Model, photos: list[Path]) -> seewhy.Explanation:
    return seewhy.explain(
        model,
        photos,
        methods=["grad_cam", "guided_grad_cam"],
        targets=["top2", "counterfactual:espresso"],
    )


def test_photos_get_the_predictions_they_deserve(explanation: seewhy.Explanation) -> None:
    assert [predictions[0].label for predictions in explanation.predictions] == [
        "tiger cat",
        "espresso",
        "missile",
    ]
    assert all(0 < p.probability <= 1 for row in explanation.predictions for p in row)


def test_attributions_come_as_methods_by_layers_by_targets(explanation: seewhy.Explanation) -> None:
    assert [(a.method, a.layer, a.target) for a in explanation] == [
        (method, "bn2", target)
        for method in ("grad_cam", "guided_grad_cam")
        for target in ("top1", "top2", "counterfactual(espresso)")
    ]
    grad_cam = explanation[0]
    assert grad_cam.map.shape == (3, 7, 7)
    assert grad_cam.heatmap().shape == (3, 224, 224)
    assert float(grad_cam.heatmap().amin()) >= 0
    assert float(grad_cam.heatmap().amax()) == pytest.approx(1)
    assert grad_cam.labels == ("tiger cat", "espresso", "missile")
    assert explanation[2].labels == ("not espresso",) * 3
    assert grad_cam.probabilities[1] == pytest.approx(explanation.predictions[1][0].probability)


def test_select_finds_by_method_and_target(explanation: seewhy.Explanation) -> None:
    assert explanation.select(method="grad_cam", target=0) == [explanation[0]]
    assert explanation.select(target="top2") == [explanation[1], explanation[4]]
    assert explanation.select(method="Grad-CAM", target="tiger cat") == [explanation[0]]
    assert explanation.select(method="gradcam", layer="bn2", target="Espresso") == [explanation[0]]
    assert explanation.select() == list(explanation)


def test_select_says_what_there_is_where_nothing_fits(explanation: seewhy.Explanation) -> None:
    with pytest.raises(
        InputError,
        match=r"method=.cam. is not in it; did you mean .*; the explanation has grad_cam, ",
    ):
        explanation.select(method="cam")
    with pytest.raises(
        InputError, match=r"layer='bn3' is not in it; did you mean 'bn2'.; the explanation has bn2"
    ):
        explanation.select(layer="bn3")
    with pytest.raises(TargetError, match="target=7: the explanation has 3 targets"):
        explanation.select(target=7)
    with pytest.raises(
        TargetError, match="target='cat' is not in the explanation; did you mean 'tiger cat'"
    ):
        explanation.select(target="cat")


def test_reprs_are_short(model: seewhy.Model, explanation: seewhy.Explanation) -> None:
    many = seewhy.wrap(
        nn.Linear(1, 1000), labels=["a name that is very long indeed " * 9] * 1000, name="n" * 999
    )
    for shown in (model, many, explanation, *explanation):
        assert 20 < len(repr(shown)) < 600, repr(shown)
    assert repr(model).startswith(
        "<Model efficientnet_lite0: EfficientNet, 224 x 224 pixels, 1000 labels: tench, "
    )
    assert "cat.png: tiger cat" in repr(explanation)
    assert repr(explanation[0]).startswith("<Attribution grad_cam at bn2 of top1, 3 x (7 x 7): ")


def test_layers_are_a_sequence_and_a_table(model: seewhy.Model) -> None:
    flow = seewhy.list_layers(model)
    assert len(flow) == len(flow.records)
    assert flow[0] is flow.records[0]
    assert flow["bn2"] in list(flow)
    assert flow[:2] == flow.records[:2]
    with pytest.raises(LayerError, match="layer 'bn3' is not among these; did you mean 'bn2'"):
        flow["bn3"]
    assert len(repr(flow)) < 600
    lines = str(flow).splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "shape",
        "stage",
        "grid",
        "layout",
        "prefix",
        "tokens",
        "chosen",
    ]
    assert len(lines) == len(flow) + 1
    assert flow.table()[-1]["chosen"] == "default"


def test_an_attribution_draws_itself_on_its_photos(explanation: seewhy.Explanation) -> None:
    first = explanation[0]
    assert first.picture(1).size == explanation.photos[1].size
    assert np.array_equal(np.asarray(first.picture(1)), np.asarray(explanation.picture(first, 1)))
    strip = Image.open(io.BytesIO(first._repr_png_() or b""))
    assert strip.width > 2 * strip.height / 1.5  # three beside each other
    figure = Figure()
    axes = figure.subplots()
    assert first.plot(axes, index=2) is axes
    assert axes.get_title() == f"{first.title} of {first.labels[2]}"
    with pytest.raises(
        InputError, match="index=3 is no image of the attribution; it has 3: 0 to 2"
    ):
        first.picture(3)
    alone = dataclasses.replace(first, photos=None)
    assert alone._repr_png_() is None
    with pytest.raises(InputError, match="has no photos to lay its maps on"):
        alone.show()


def test_layers_are_called_what_people_call_them_whoever_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = TinyCNN().eval()
    found = seewhy.explain(
        net, pictures(2), methods=["grad_cam", "saliency"], layers=["relu1", "relu2"], targets=1
    )  # fmt: skip
    titles = ["stage 1 of 2, 32 x 32", "last stage, 8 x 8"]
    assert [a.layer_title for a in found] == [*titles, None]
    assert found.fuse("layer")[-1].layer_title == " + ".join(titles)
    assert [a.layer for a in found.select(layer="relu2")] == ["relu2"]
    told = json.loads(found.save(tmp_path).read_text())["images"][0]
    assert [each["layer_title"] for each in told["attributions"]] == [*titles, None]
    assert told["input_size"] == [32, 32]
    assert [a.layer_title for a in seewhy.open(tmp_path)] == [*titles, None]
    default = seewhy.explain(net, pictures(1), methods="grad_cam", targets=1)[0]
    assert (default.layer, default.layer_title) == ("relu2", titles[1])

    def unknown(*_: object) -> None:
        raise LayerError("nothing is known of its layers")

    monkeypatch.setattr("seewhy.methods.explain.find_flow", unknown)
    named = seewhy.explain(net, pictures(1), methods="grad_cam", layers="relu2", targets=1)[0]
    assert (named.layer, named.layer_title) == ("relu2", None)
    assert torch.equal(named.map, default.map)


def test_a_notebook_shows_every_photo_or_says_how_many(explanation: seewhy.Explanation) -> None:
    whole = Image.open(io.BytesIO(explanation._repr_png_() or b""))
    assert whole.height >= sum(explanation.sheet(i).height for i in range(3))
    four = join([explanation, explanation])
    more = Image.open(io.BytesIO(four._repr_png_() or b""))
    assert more.width == whole.width
    assert whole.height < more.height < whole.height + 100  # a line that says 3 of 6


def test_a_table_of_numbers_needs_pandas(
    explanation: seewhy.Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError,
        match=r"to_dataframe.. needs pandas, which is not installed: pip install pandas",
    ):
        explanation.to_dataframe()
    made = types.SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", made)
    rows, columns = explanation.to_dataframe()  # type: ignore[misc]
    assert len(rows) == 3 * len(explanation)
    assert all(set(row) == set(columns) for row in rows)
    assert rows[0]["photo"] == "cat.png"
    assert rows[0]["label"] == "tiger cat"


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_batch_size_changes_nothing(
    model: seewhy.Model, photos: list[Path], explanation: seewhy.Explanation, batch_size: int
) -> None:
    again = seewhy.explain(
        model,
        photos,
        methods=["grad_cam", "guided_grad_cam"],
        targets=["top2", "counterfactual:espresso"],
        batch_size=batch_size,
    )
    for a, b in zip(explanation, again, strict=True):
        torch.testing.assert_close(a.map, b.map, rtol=1e-3, atol=1e-5 * float(a.map.abs().amax()))
        assert (a.labels, a.status) == (b.labels, b.status)


def test_one_target_for_each_image_is_cut_with_the_batches(
    model: seewhy.Model, photos: list[Path]
) -> None:
    classes = [281, 504, 812]
    together = seewhy.explain(model, photos, targets=[classes], batch_size=2)
    for i, (photo, c) in enumerate(zip(photos, classes, strict=True)):
        alone = seewhy.explain(model, photo, targets=c)
        torch.testing.assert_close(together[0].map[i], alone[0].map[0], rtol=1e-3, atol=1e-5)
        assert together[0].labels[i] == model.label(c)


def test_pictures_arrays_tensors_and_folders_are_all_photos(
    model: seewhy.Model, photos: list[Path]
) -> None:
    assert model.preprocess is not None
    by_path = seewhy.explain(model, photos[0])
    picture = Image.open(photos[0]).convert("RGB")
    x, _ = model.preprocess.batch([picture])
    for source in (str(photos[0]), picture, np.asarray(picture), [picture], x):
        torch.testing.assert_close(seewhy.explain(model, source)[0].map, by_path[0].map)
    assert seewhy.explain(model, photos[0].parent).names == ("cat.png", "coffee.png", "rocket.png")


def test_the_heatmap_lies_where_the_model_saw_the_photo(explanation: seewhy.Explanation) -> None:
    placement = explanation.placements[0]
    field = placement.place(explanation[0].heatmap()[0].numpy())
    assert field.shape == (300, 451)
    assert np.isnan(field[0, 0])
    y, x = np.unravel_index(np.nanargmax(field), field.shape)
    assert 40 < y < 260
    assert 100 < x < 300  # the cat's face


def test_all_stages_and_fusion(model: seewhy.Model, photos: list[Path]) -> None:
    staged = seewhy.explain(model, photos[0], methods="layer_cam", layers="all-stages")
    assert [tuple(a.map.shape[1:]) for a in staged] == [
        (112, 112),
        (56, 56),
        (28, 28),
        (14, 14),
        (7, 7),
    ]
    fused = staged.fuse("layer")[-1]
    torch.testing.assert_close(fused.map, maps.fuse([a.map for a in staged]))
    with pytest.raises(
        InputError, match="would fuse nothing: for each target there is one method only"
    ):
        staged.fuse("method")
    with pytest.raises(InputError, match="over='target' is not known; use 'layer', 'method'"):
        staged.fuse("target")  # type: ignore[arg-type]


def test_save_writes_pictures_at_the_photo_s_size_maps_and_json(
    explanation: seewhy.Explanation, tmp_path: Path
) -> None:
    told = json.loads(explanation.save(tmp_path / "out").read_text())
    assert [image["name"] for image in told["images"]] == ["cat.png", "coffee.png", "rocket.png"]
    for i, image in enumerate(told["images"]):
        assert len(image["attributions"]) == len(explanation)
        for a, entry in zip(explanation, image["attributions"], strict=True):
            with Image.open(tmp_path / "out" / entry["picture"]) as picture:
                assert picture.size == explanation.photos[i].size
            with np.load(tmp_path / "out" / entry["map"]["file"]) as arrays:
                np.testing.assert_array_equal(arrays[entry["map"]["key"]], a.map[i].numpy())
        assert (tmp_path / "out" / image["sheet"]).is_file()
    assert told["images"][1]["predictions"][0]["label"] == "espresso"


def test_photos_of_one_name_do_not_overwrite_each_other(
    model: seewhy.Model, photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        Image.open(photos[0]).resize((64, 64)).save(tmp_path / folder / "cat.png")
    told = json.loads(seewhy.explain(model, tmp_path).save(tmp_path / "out").read_text())
    assert [image["name"] for image in told["images"]] == ["a/cat.png", "b/cat.png"]
    assert [image["sheet"] for image in told["images"]] == ["cat/sheet.png", "cat-2/sheet.png"]


def test_photos_are_called_by_their_path_below_what_was_given(
    photos: list[Path], tmp_path: Path
) -> None:
    def names(*given: Any) -> list[str]:
        return Source(given, model, None).names

    model = seewhy.wrap(TinyCNN(), preprocess=seewhy.IMAGENET)
    for name in ("a/cat.png", "b/cat.png", "b/c/dog.png", "d/b/cat.png", "dog.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photos[0].read_bytes())
    a, b, d, dog = (tmp_path / name for name in ("a", "b", "d", "dog.png"))
    assert names(tmp_path) == ["a/cat.png", "b/c/dog.png", "b/cat.png", "d/b/cat.png", "dog.png"]
    assert names(a, dog) == ["cat.png", "dog.png"]
    assert names(a, b, dog) == ["a/cat.png", "c/dog.png", "b/cat.png", "dog.png"]
    assert names(a / "cat.png", str(b / "cat.png")) == ["a/cat.png", "b/cat.png"]
    assert names(b, d / "b", Image.open(dog)) == [
        "c/dog.png",
        f"{b}/cat.png",
        f"{d}/b/cat.png",
        "image 3",
    ]
    assert names(dog, dog) == [str(dog)] * 2


def test_targets_that_look_alike_have_files_of_their_own(tmp_path: Path) -> None:
    def of_class(i: int) -> Any:
        return lambda output: output[:, i]

    net, x = randomised(TinyCNN()), pictures(1)
    explanation = seewhy.explain(net, x, methods="saliency", targets=[of_class(0), of_class(1)])
    told = json.loads(explanation.save(tmp_path).read_text())["images"][0]["attributions"]
    with np.load(tmp_path / told[0]["map"]["file"]) as arrays:
        for i, (entry, attribution) in enumerate(zip(told, explanation, strict=True)):
            assert (tmp_path / entry["picture"]).is_file()
            np.testing.assert_array_equal(arrays[entry["map"]["key"]], attribution.map[0].numpy())
            assert entry["map"]["key"].endswith(("lambda", "lambda-2")[i])


def test_the_report_is_one_page_about_all_photos(
    explanation: seewhy.Explanation, tmp_path: Path
) -> None:
    page = explanation.report(tmp_path / "deep" / "report.html").read_text()
    for said in ("cat.png", "coffee.png", "rocket.png", "espresso", "Grad-CAM"):
        assert said in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_batches_come_as_they_are_done(model: seewhy.Model, photos: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    parts = explain_batches(
        model, photos, batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    assert next(parts).names == ("cat.png", "coffee.png")
    assert next(parts).names == ("rocket.png",)
    assert list(parts) == []
    assert seen == [(2, 3), (3, 3)]


def test_a_bad_picture_is_left_out_where_asked(
    model: seewhy.Model, photos: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(photos[0].read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"bad\.png"):
        seewhy.explain(model, [photos[0], bad])
    left_out: list[Path] = []
    parts = list(
        explain_batches(
            model,
            [bad, photos[0]],
            batch_size=1,
            on_bad_image=lambda item, _: left_out.append(item),
        )
    )
    assert [part.names for part in parts] == [("cat.png",)]
    assert left_out == [bad]
    line = tmp_path / "line.png"
    Image.new("RGB", (4000, 1)).save(line)
    parts = list(
        explain_batches(
            model, [line, photos[0]], on_bad_image=lambda item, _: left_out.append(item)
        )
    )
    assert [part.names for part in parts] == [("cat.png",)]
    assert left_out == [bad, line]
    with pytest.raises(
        ImageError,
        match=r"image 'line\.png': photo of 4000 x 1 is too elongated to resize; crop it",
    ):
        seewhy.explain(model, line)


class _Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.body(x)), "aux": x.mean((2, 3))}


def test_the_probability_of_one_of_several_labels_is_its_sigmoid() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    model = seewhy.wrap(net, multi_label=True, labels=["a", "b", "c", "d", "e"])
    with torch.no_grad():
        sigmoids = net(x).sigmoid()
    targets = ["probability:c", "probability:top2"]
    found = seewhy.explain(
        model, x, methods=["saliency", "occlusion"], targets=targets, batch_size=2
    )
    for attribution in found:
        assert attribution.scores == pytest.approx(attribution.probabilities, abs=1e-6)
    named, best, second = found.select(method="saliency")
    assert named.scores == pytest.approx(sigmoids[:, 2].tolist(), abs=1e-6)
    for place, each in enumerate((best, second)):
        assert each.target == f"probability(top{place + 1})"
        assert each.scores == pytest.approx(sigmoids.topk(2).values[:, place].tolist(), abs=1e-6)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(leaf).sigmoid()[:, 2].sum(), leaf)
    torch.testing.assert_close(named.pixels.abs(), slope.abs(), rtol=1e-4, atol=1e-7)
    (alone,) = seewhy.explain(net, x, methods="saliency", targets="probability:2")
    with torch.no_grad():
        assert alone.scores == pytest.approx(net(x).softmax(1)[:, 2].tolist(), abs=1e-6)


def test_outputs_that_are_no_classes_are_explained_by_their_targets() -> None:
    region = torch.zeros(16, 16)
    region[:8] = 1
    target = seewhy.targets.SegmentationRegion(2, region)
    done = seewhy.explain(
        _Segmenter(), torch.rand(2, 3, 16, 16), methods="hires_cam", targets=target, layers="body"
    )
    assert done.predictions == ((), ())
    assert done[0].probabilities == (None, None)
    assert done[0].map[:, 9:].abs().amax() == 0  # what lies outside the region has no say
    with pytest.raises(TargetError, match=r"output has shape \(2, 4, 16, 16\), not \(N, K\)"):
        seewhy.explain(_Segmenter(), torch.rand(2, 3, 16, 16), targets=1)


_NET = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
)
_X = torch.rand(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("images", "options", "error", "said"),
    [
        (
            _X,
            {"methods": "grad_cma"},
            InputError,
            "method 'grad_cma' is unknown; did you mean 'grad_cam'",
        ),
        (
            _X,
            {"targets": 5},
            TargetError,
            "target 5 is not a class of the model, which has 5: 0 to 4",
        ),
        (_X, {"targets": "top9"}, TargetError, "'top9' asks for 9 classes, the model has 5"),
        (_X, {"targets": "tabby"}, TargetError, "'tabby' is a name, and the model has no labels"),
        (_X, {"targets": [[1]]}, TargetError, "names 1 classes for 2 images"),
        (_X, {"targets": 1.5}, ArgumentTypeError, "targets=1.5 is no target"),
        (_X, {"targets": []}, InputError, "nothing to explain"),
        (_X, {"layers": "9"}, LayerError, "layer '9' is not in Sequential"),
        (_X, {"layers": "4"}, LayerError, "which is no picture"),
        (_X, {"batch_size": 0}, InputError, "batch_size=0 is too small"),
        (
            _X,
            {"options": {"riise": {"samples": 3}}},
            InputError,
            "method 'riise' is unknown; did you mean 'rise'",
        ),
        (
            _X,
            {"methods": "grad_cam", "options": {"grad_cam": {"steps": 3}}},
            InputError,
            "grad_cam has no option 'steps'; its options: none",
        ),
        (_X[:0], {}, InputError, "the batch is empty"),
        ([], {}, InputError, "images is empty"),
        (_X[:, :2], {}, InputError, r"x of shape \(1, 2, 16, 16\) does not fit the model"),
        (_X * float("nan"), {}, InputError, "x has NaN or infinite values in image 0, 1"),
        ("nowhere.jpg", {}, ImageError, r"image 'nowhere\.jpg' does not exist"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    images: object, options: dict[str, object], error: type[SeewhyError], said: str
) -> None:
    model = seewhy.wrap(_NET, preprocess=seewhy.IMAGENET) if isinstance(images, str) else _NET
    with pytest.raises(error, match=said) as raised:
        seewhy.explain(model, images, **options)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_list_layers_marks_the_choice(model: seewhy.Model) -> None:
    flow = seewhy.list_layers(model)
    assert flow.default == "bn2"
    assert {"conv_stem", "blocks.4", "bn2"} <= {record.name for record in flow.records}
    assert seewhy.list_layers("timm:test_resnet").chosen  # needs no weights
