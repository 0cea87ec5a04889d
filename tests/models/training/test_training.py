"""Training: what is learnt, what is on disk, and that nothing that happens on the way changes where it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image

import seewhy
from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.preprocess import Preprocess
from seewhy.errors import ImageError, InputError, MissingExtraError, ModelError, SeewhyWarning
from seewhy.maps.values import normalize, resize
from seewhy.models.networks.cards import read_card
from seewhy.models.training import TrainingError, train
from seewhy.models.training.feeding import AUGMENTATIONS, Augmentation, Feed, Pictures, augmented
from seewhy.models.training.fitting import loss_function, schedule, start_fabric
from wsol_squares import PLAIN, Squares, fit, one_thread, trained_alone, weights

_one_thread = pytest.fixture(scope="module", autouse=True)(one_thread)
left_alone = pytest.fixture(scope="module")(trained_alone)


@pytest.mark.parametrize(
    ("pooling", "several"),
    [
        ("gap", False),
        ("oquab", True),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (("gmp", False), ("lse", True), ("oquab", False))
        ),
    ],
)
def test_every_head_learns(pooling: str, several: bool, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    rows: list[Mapping[str, float]] = []
    steps: list[tuple[int, int]] = []
    trained = fit(
        tmp_path / "run",
        pooling=pooling,
        several=several,
        epochs=12,
        progress=lambda done, total: steps.append((done, total)),
        on_epoch=rows.append,
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert trained.scores["value"] >= 0.95
    assert trained.scores["value"] == max(row["score"] for row in trained.history)
    assert trained.scores["metric"] == ("mean average precision" if several else "top-1")
    assert list(trained.history) == rows
    assert steps == [(i + 1, 48) for i in range(48)]
    model = trained.model
    assert model.labels == ("red", "green", "blue")
    assert not model.module.training
    assert Image.open(tmp_path / "run" / "learning.png").size[0] > 900
    data = Squares(20, multi_label=several, split="val")
    x, _ = model.preprocess.batch([data[i].photo for i in range(20)])
    with torch.no_grad():
        scores = model(x)
    marked = torch.zeros(20, 3)
    for row, labels in zip(marked, data.labels, strict=True):
        row[list(labels)] = 1
    if several:
        from sklearn.metrics import average_precision_score

        value = float(
            np.mean([average_precision_score(marked[:, k], scores[:, k]) for k in range(3)])
        )
    else:
        value = float((scores.argmax(1) == marked.argmax(1)).float().mean())
    assert trained.scores["value"] == pytest.approx(value, abs=1e-5)
    explanation = seewhy.explain(model, data[0].photo, methods=["cam", "grad_cam"], targets="red")
    # a sigmoid for each class, where that is what was trained
    chances = scores.sigmoid() if several or pooling == "oquab" else scores.softmax(1)
    for said in explanation.predictions[0]:
        assert said.probability == pytest.approx(float(chances[0, said.index]), abs=1e-4)
    assert explanation[0].probabilities == pytest.approx((float(chances[0, 0]),), abs=1e-4)
    assert [a.map.shape for a in explanation] == [(1, 4, 4)] * 2
    heat = explanation.select(method="cam")[0].heatmap()[0]
    y, x_ = divmod(int(heat.argmax()), heat.shape[1])
    red = np.asarray(data[0].photo)[max(y - 8, 0) : y + 9, max(x_ - 8, 0) : x_ + 9]
    assert (red[:, :, 0].astype(int) - red[:, :, 1] > 100).any()


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]
)
def test_average_pooling_covers_more_of_the_object_than_maximum_pooling(
    seed: int, tmp_path: Path
) -> None:
    """Zhou et al., section 2: the most telling part is enough for the maximum, and not for the average."""
    sets = {
        split: Squares(40, split=split, edge=20, shaded=True) for split in ("train", "val", "test")
    }
    examples = [sets["test"][i] for i in range(30)]
    covered = {}
    for pooling in ("gap", "gmp"):
        options: dict[str, Any] = {"pooling": pooling, "stages": 2, "epochs": 8, "seed": seed}
        trained = fit(tmp_path / pooling, data=sets["train"], val=sets["val"], **options)
        assert trained.scores["value"] == 1
        x, _ = trained.model.preprocess.batch([example.photo for example in examples])
        found = seewhy.METHODS["cam"](
            trained.model, x, target=[example.labels[0] for example in examples]
        )
        heat = normalize(resize(found.clamp(min=0), (32, 32)))
        shares = [
            (h[e.truth.region()] > 0.2).float().mean()
            for h, e in zip(heat, examples, strict=True)
            if e.truth
        ]
        covered[pooling] = float(torch.stack(shares).mean())
    assert covered["gap"] > covered["gmp"] + 0.03


def test_the_card_says_what_it_is(left_alone: Path) -> None:
    card = read_card(left_alone)
    assert card["architecture"] == {
        "backbone": "timm:test_resnet",
        "pooling": "gap",
        "classes": 3,
        "size": [32, 32],
        "stages": 3,
        "units": 16,
        "dropout": 0.3,
    }
    assert (card["labels"], card["multi_label"], card["seed"]) == (
        ["red", "green", "blue"],
        False,
        0,
    )
    assert (card["finished"], card["format"], card["version"]) == (True, "seewhy-localisation", 1)
    assert card["data"]["train"]["pictures"] == 40
    assert card["data"]["val"]["title"] == "squares, val"
    assert card["scores"]["pictures"] == 20
    assert set(card["versions"]) == {"seewhy", "torch", "timm"}
    history = json.loads((left_alone / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]


def test_a_trained_model_loads_from_its_folder_or_its_weights(
    left_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = seewhy.load_model(str(left_alone))
    file = seewhy.load_model(str(left_alone / "model.safetensors"), labels=["a", "b", "c"])
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(whole(x), file(x))
    assert whole.preprocess == file.preprocess
    assert file.labels == ("a", "b", "c")
    monkeypatch.chdir(left_alone)  # where a card lies beside every other name
    assert seewhy.load_model("timm:test_resnet", pretrained=False).labels is not None
    assert torch.equal(seewhy.load_model("model.safetensors")(x), whole(x))
    bare = seewhy.load_model(str(left_alone), pretrained=False)
    assert not torch.equal(whole(x), bare(x))


def test_what_is_damaged_is_said_in_one_line(left_alone: Path, tmp_path: Path) -> None:
    def broken(name: str, **changes: Any) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((left_alone / "model.safetensors").read_bytes())
        card = {**json.loads((left_alone / "card.json").read_text()), **changes}
        (folder / "card.json").write_text(
            json.dumps({k: v for k, v in card.items() if v is not None})
        )
        return str(folder)

    empty = tmp_path / "empty"
    empty.mkdir()
    other = json.loads((left_alone / "card.json").read_text())["architecture"] | {"units": 17}
    no_json = Path(broken("no_json"))
    (no_json / "card.json").write_text("{")
    no_weights = Path(broken("no_weights"))
    (no_weights / "model.safetensors").unlink()
    for folder, said in (
        (str(empty / "model.safetensors"), "has no card.json"),
        (str(empty), "has no card.json; give one that 'seewhy train' or model.save wrote"),
        (broken("newer", version=2), "has version 2; this seewhy reads 1: update it"),
        (broken("format", format="else"), "is not of the format"),
        (broken("labels", labels=None), "lacks labels"),
        (broken("preprocess", preprocess={"sizes": 3}), "is none of this version"),
        (
            broken("architecture", architecture=other),
            "the weights do not fit LocalizationNet: of its tensors",
        ),
        (str(no_json), "cannot be read: Expecting"),
        (str(no_weights), "does not exist"),
    ):
        with pytest.raises(ModelError, match=said) as raised:
            seewhy.load_model(folder)
        assert "\n" not in str(raised.value)


def test_the_seed_decides(left_alone: Path, tmp_path: Path) -> None:
    fit(tmp_path / "other", dropout=0.3, seed=1, epochs=1)
    first, other = weights(left_alone), weights(tmp_path / "other")
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])


def test_early_stopping_and_no_pictures_held_back(tmp_path: Path) -> None:
    still = fit(tmp_path / "still", epochs=9, patience=2, lr=1e-12)
    assert len(still.history) == 3 + still.scores["epoch"] - 1
    assert read_card(tmp_path / "still")["finished"]
    alone = fit(tmp_path / "alone", val=None, epochs=2)
    assert alone.scores == {}
    assert [set(row) for row in alone.history] == [{"epoch", "train_loss"}] * 2
    last = weights(tmp_path / "alone")
    for name, value in alone.model.module.state_dict().items():
        assert torch.equal(value, last[name])


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) .*epoch [12].*give a smaller lr than 1e\+30"
    ) as raised:
        fit(tmp_path, lr=1e30)
    assert "\n" not in str(raised.value)


def test_the_embedded_weights_are_a_start(tmp_path: Path) -> None:
    trained = train(Squares(6), out=tmp_path, epochs=1, lr=1e-12, size=(64, 64))
    embedded = seewhy.load_model().module.state_dict()
    own = trained.model.module.state_dict()
    assert torch.equal(own["backbone.net.conv_stem.weight"], embedded["conv_stem.weight"])
    assert trained.model.preprocess.mean == (0.5, 0.5, 0.5)
    assert (trained.model.preprocess.size, trained.model.preprocess.resize) == ((64, 64), (64, 64))
    assert read_card(tmp_path)["settings"]["weights"] == "efficientnet_lite0"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 0}, "epochs=0 cannot be used; give at least 1"),
        ({"lr": 0.0}, "give lr above 0"),
        ({"seed": -1}, "seed=-1 cannot be used"),
        ({"augment": "mirrored"}, "augment='mirrored' is not known; did you mean 'mirror'"),
        ({"stages": "automatic"}, "stages='automatic' is not known"),
        ({"patience": 2, "val": None}, "patience=2 needs pictures held back"),
        (
            {"several": True, "multi_label": False},
            "picture 'train-3' has 2 labels; give one each, or multi_label=True",
        ),
        ({"device": "cuda:7"}, "device 'cuda:7' cannot be used"),
        ({"precision": "8-bit"}, "precision='8-bit'"),
        ({"pooling": "max"}, "pooling='max' is not known"),
    ],
)
def test_what_cannot_be_trained(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    if changed.get("device") and torch.cuda.device_count() > 7:
        pytest.skip("there is such a device")
    with pytest.raises(InputError, match=said) as raised:
        fit(tmp_path / "run", **changed)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_more_devices_than_there_are_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise MisconfigurationException(
            "You requested gpu: [0, 1]\n But your machine only has: [0]"
        )

    monkeypatch.setattr("lightning.fabric.Fabric", refuse)
    with pytest.raises(
        InputError, match=r"devices=2, .*requested gpu: \[0, 1\] But your machine only has: \[0\]$"
    ):
        start_fabric("cuda", 2, "32-true")


def test_splits_that_do_not_go_together(tmp_path: Path) -> None:
    val = Squares(20, split="val")
    val.classes = ("red", "green", "yellow")
    with pytest.raises(InputError, match="differ: 'blue', 'yellow'"):
        fit(tmp_path, val=val)
    with pytest.raises(InputError, match="no picture of 'blue'"):
        fit(tmp_path, data=Squares(2))
    with pytest.warns(SeewhyWarning, match="no picture of 'blue'"):
        fit(tmp_path, val=Squares(2, split="val"), epochs=1)


class Damaged(Squares):
    """One picture of it cannot be read."""

    def __getitem__(self, index: int) -> Example:
        if index == 7:
            raise ImageError("image 'train-7' is truncated")
        return super().__getitem__(index)


def test_a_damaged_picture_is_fatal_or_left_out_as_asked(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="'train-7' is truncated"):
        fit(tmp_path / "fatal", data=Damaged())
    data = Damaged()
    data.on_error = "skip"
    fit(tmp_path / "left", data=data, epochs=1)
    card = read_card(tmp_path / "left")
    assert card["data"]["train"]["pictures"] == 39
    assert card["skipped"] == {"train-7": "image 'train-7' is truncated"}


def test_pictures_that_were_checked_are_not_opened_for_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Squares()
    data.on_error = "skip"
    checked = data.readable()
    assert not checked.skipped
    monkeypatch.setattr(LabeledImages, "readable", lambda *_: pytest.fail("opened again"))
    fit(tmp_path, data=checked, epochs=1)


def test_a_class_that_is_not_held_back_does_not_count(tmp_path: Path) -> None:
    whole = Squares(40, multi_label=True, split="val")
    val = whole.subset([i for i, labels in enumerate(whole.labels) if 2 not in labels])
    with pytest.warns(SeewhyWarning, match="no picture of 'blue'"):
        trained = fit(tmp_path, several=True, val=val, epochs=2)
    x, _ = trained.model.preprocess.batch([val[i].photo for i in range(len(val))])
    with torch.no_grad():
        scores = trained.model(x)
    from sklearn.metrics import average_precision_score

    marked = np.array([[k in labels for k in range(2)] for labels in val.labels])
    expected = np.mean([average_precision_score(marked[:, k], scores[:, k]) for k in range(2)])
    assert trained.scores["value"] == pytest.approx(expected, abs=1e-5)


def test_a_folder_that_cannot_be_written_is_known_before_the_first_epoch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows: list[Mapping[str, float]] = []
    with pytest.raises(TrainingError, match="cannot be written: File exists; give a folder"):
        fit(tmp_path / "file", on_epoch=rows.append)
    assert not rows


def test_other_pictures_of_the_same_names_are_another_training(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1)
    with pytest.raises(InputError, match=r"data.train.digest was .* resume=False to begin anew"):
        fit(tmp_path, epochs=1, data=Squares(edge=9))


def test_the_input_is_the_pictures_size_where_they_agree(tmp_path: Path) -> None:
    class Mixed(Squares):
        def __getitem__(self, index: int) -> Example:
            example = super().__getitem__(index)
            return replace(example, photo=example.photo.resize((40, 40))) if index == 0 else example

    assert read_card(fit(tmp_path / "same", epochs=1).folder)["architecture"]["size"] == [32, 32]
    few = Mixed().subset(range(6))
    mixed = fit(tmp_path / "mixed", data=few, val=None, epochs=1, stages="auto", units=None)
    assert read_card(mixed.folder)["architecture"]["size"] == [224, 224]


def test_without_lightning_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "lightning.fabric", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\[train\]'"):
        fit(tmp_path)


def test_losses_are_the_papers() -> None:
    scores, labels = (
        torch.randn(4, 3, dtype=torch.float64) * 3,
        torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    )
    y = 2 * labels - 1
    expected = sum(
        float(torch.log1p(torch.exp(-y[i, k] * scores[i, k]))) for i in range(4) for k in range(3)
    )
    torch.testing.assert_close(float(loss_function(binary=True)(scores, labels)), expected / 4)
    chosen = scores.softmax(1).gather(1, labels.argmax(1)[:, None]).log().mean()
    torch.testing.assert_close(loss_function(binary=False)(scores, labels), -chosen)
    assert [schedule(d) for d in (0.0, 0.05, 0.1)] == [0.0, 0.5, 1.0]
    assert schedule(0.55) == pytest.approx(0.5)
    assert schedule(1.0) == pytest.approx(0.0)


def feed(count: int, **more: Any) -> Feed:
    return Feed(Squares(count), PLAIN, batch_size=5, augmentation=Augmentation(), seed=3, **more)


def test_every_epoch_shows_every_picture_once_in_another_order() -> None:
    first, second = (list(chain(*feed(23).order(epoch))) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    assert feed(23).order(None)[0] == [0, 1, 2, 3, 4]
    assert [len(batch) for batch in feed(21).order(0)] == [
        5,
        5,
        5,
        5,
    ]  # BatchNorm has no statistics of one
    assert [len(batch) for batch in feed(21).order(None)] == [5, 5, 5, 5, 1]
    halves = [feed(23, rank=rank, world=2) for rank in (0, 1)]
    assert set(chain(*chain(*(half.order(4) for half in halves)))) == set(range(23))
    assert len({len(half.order(4)) for half in halves}) == 1
    assert sorted(chain(*chain(*(half.order(None) for half in halves)))) == list(range(23))


def test_a_picture_s_changes_are_its_own() -> None:
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    changed = augmented(x, AUGMENTATIONS["mirror"], seed=1, epoch=2, indices=[5, 6, 7, 8])
    alone = augmented(x[2:3], AUGMENTATIONS["mirror"], seed=1, epoch=2, indices=[7])
    torch.testing.assert_close(changed[2:3], alone)
    for other in ({"seed": 2}, {"epoch": 3}, {"indices": [9]}):
        given: dict[str, Any] = {"seed": 1, "epoch": 2, "indices": [7], **other}
        assert not torch.allclose(augmented(x[2:3], AUGMENTATIONS["mirror"], **given), alone)
    assert augmented(x, AUGMENTATIONS["none"], seed=1, epoch=2, indices=[5, 6, 7, 8]) is x
    mirrored = [
        augmented(x[:1], Augmentation(mirror=True), seed=0, epoch=0, indices=[i]) for i in range(40)
    ]
    turned = [m for m in mirrored if torch.allclose(m, x[:1].flip(3), atol=0.05)]
    assert len(turned) + sum(torch.allclose(m, x[:1], atol=0.05) for m in mirrored) == 40
    assert 10 <= len(turned) <= 30
    lit = augmented(x, Augmentation(light=0.3), seed=0, epoch=0, indices=range(4))
    assert not torch.allclose(lit, x, atol=1)
    assert 0 <= lit.min() <= lit.max() <= 255


def test_inputs_are_what_the_model_s_preprocessing_gives() -> None:
    data = Squares(6)
    preprocess = Preprocess((20, 28), (20, 28), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic")
    fed = Feed(data, preprocess, batch_size=4, augmentation=Augmentation(), seed=0)
    expected, _ = preprocess.batch([data[i].photo for i in range(6)])
    parts = list(fed.batches(None, torch.device("cpu")))
    torch.testing.assert_close(torch.cat([x for x, _ in parts]), expected, rtol=1e-5, atol=1e-5)
    assert torch.cat([labels for _, labels in parts]).argmax(1).tolist() == [0, 1, 2, 0, 1, 2]


def test_pictures_are_read_once_where_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counted(Squares):
        def __getitem__(self, index: int) -> Example:
            read.append(index)
            return super().__getitem__(index)

    for limit, expected in ((2**31, [3]), (40 * 3 * 32 * 32 - 1, [3, 3])):
        monkeypatch.setattr("seewhy.wsol.feeding.CACHE_BYTES", limit)
        pictures = Pictures(Counted(), PLAIN)
        assert torch.equal(pictures[3], pictures[3])
        assert read == expected
        read.clear()
