"""What is to know of a map travels with it: record, repr, overlay, sheet, JSON, report, terminal, warning."""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import seewhy
from seewhy.cli import run
from seewhy.errors import SeewhyWarning
from seewhy.methods.remarks import naming, remarks_of_facts, tell
from seewhy.remarks import heard, together, warn
from tiny_models import TinyCNN, pictures, randomised

_SAID = "a linear model has"
_FACTORY = """
from dataclasses import replace
import torch
from torch import nn
import seewhy

class Parity(nn.Module):
    def forward(self, x):
        product = x[:, 0].flatten(1)[:, ::97].sign().prod(1)
        return torch.stack([product, -product], 1)

def make():
    preprocess = replace(seewhy.IMAGENET, size=(32, 32), resize=(32, 32))
    return seewhy.wrap(Parity(), preprocess=preprocess, labels=["even", "odd"], gives="logits")
"""


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "noise.png"
    values = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> seewhy.Model:
    path = tmp_path_factory.mktemp("models") / "parity.py"
    path.write_text(_FACTORY)
    with pytest.warns(SeewhyWarning, match="runs the code of"):
        return seewhy.load_model(f"{path}:make")


def _explained(model: seewhy.Model, photo: Path) -> seewhy.Explanation:
    lime = {"lime": {"samples": 60, "superpixels": "grid"}}
    return seewhy.explain(model, photo, methods=["lime", "occlusion"], options=lime)


def test_a_warning_names_the_photo_and_the_label_at_the_line_of_the_caller(
    model: seewhy.Model, photo: Path
) -> None:
    frame = inspect.currentframe()
    assert frame is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = frame.f_lineno + 1
        seewhy.explain(
            model, photo, methods="lime", options={"lime": {"samples": 60, "superpixels": "grid"}}
        )
    (one,) = (each for each in caught if issubclass(each.category, SeewhyWarning))
    assert (one.filename, one.lineno) == (__file__, line)
    assert str(one.message).startswith(
        ("LIME of noise.png, even: a linear model", "LIME of noise.png, odd: a linear")
    )


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
def test_a_remark_stands_on_the_record_and_on_all_that_is_drawn_of_it(
    model: seewhy.Model, photo: Path, tmp_path: Path
) -> None:
    ex = _explained(model, photo)
    lime, occlusion = ex
    assert lime.status == ("ok",)
    assert lime.remarks[0][0].startswith(_SAID)
    assert occlusion.remarks == ((),)
    assert _SAID in repr(lime)
    assert "remarks on 1 of its maps" in repr(ex)
    assert max(len(repr(ex)), len(repr(lime))) < 600
    plain = seewhy.Explanation(
        ex.model,
        ex.names,
        ex.photos,
        ex.placements,
        ex.predictions,
        tuple(_without_remarks(a) for a in ex),
    )
    marked, unmarked = (np.asarray(each.picture(each[0])) for each in (ex, plain))
    assert (marked != unmarked).any(2).mean() > 0.1  # a strip at its foot or its head
    third = len(marked) // 3
    ends = [slice(third), slice(-third, None)]
    assert [bool((marked[end] == unmarked[end]).all()) for end in ends].count(True) == 1
    assert ex.sheet().height > plain.sheet().height
    page = ex.report(tmp_path / "report.html").read_text()
    assert page.count(f"unsure: {_SAID}") == 1
    told = json.loads(ex.save(tmp_path / "out").read_text())["images"][0]["attributions"]
    assert told[0]["remarks"] == list(lime.remarks[0])
    assert told[1]["remarks"] == []


def _without_remarks(attribution: seewhy.Attribution) -> seewhy.Attribution:
    from dataclasses import replace

    return replace(attribution, remarks=())


@pytest.mark.filterwarnings("always::seewhy.errors.SeewhyWarning")
def test_the_terminal_says_it_beside_the_map(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(_FACTORY)
    options = ["-O", "lime.samples=60", "-O", "lime.superpixels=grid"]
    for command in ("explain", "localize"):
        assert (
            run([command, str(photo), "-m", "own.py:make", "-M", "lime", *options, "-o", command])
            == 0
        )
        said = capsys.readouterr()
        assert _SAID in said.out
        assert "seewhy: LIME of noise.png, " in said.err
    boxes = json.loads((tmp_path / "localize" / "boxes.json").read_text())
    assert boxes["images"][0]["found"][0]["remarks"][0].startswith(_SAID)
    scored = [
        "evaluate",
        str(photo),
        "-m",
        "own.py:make",
        "-M",
        "lime",
        *options,
        "--metric",
        "complexity",
    ]
    assert run([*scored, "-o", "scored"]) == 0
    assert "unsure lime: noise.png, " in capsys.readouterr().err
    row = json.loads((tmp_path / "scored" / "evaluation.json").read_text())["rows"][0]
    assert _SAID in row["remarks"][0]


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
def test_remarks_are_joined_over_batches_and_go_into_what_is_fused(
    model: seewhy.Model, photo: Path
) -> None:
    options = {"lime": {"samples": 60, "superpixels": "grid"}}
    both = seewhy.explain(
        model, [photo, photo], methods=["lime", "occlusion"], batch_size=1, options=options
    )
    assert [len(said) for said in both[0].remarks] == [1, 1]
    fused = both.fuse("method")[-1]
    assert all(said[0].startswith(f"LIME: {_SAID}") for said in fused.remarks)


def test_what_the_rules_cannot_reach_stands_on_the_maps_it_is_of() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 900, 2))
    with pytest.warns(SeewhyWarning, match="has no rectifier"):
        ex = seewhy.explain(net, pictures(2), methods=["guided_backprop", "saliency"], targets=0)
    assert all("has no rectifier" in said[0] for said in ex[0].remarks)
    assert ex[1].remarks == ((), ())


def test_a_plain_function_warns_of_the_place_in_the_batch() -> None:
    with pytest.warns(
        SeewhyWarning, match=r"RISE of image 0, class 1: its error is .* after 2 samples"
    ):
        seewhy.methods.rise(randomised(TinyCNN()), pictures(2), 1, samples=2, cells=3, masks="iid")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, ()),
        (
            {"partial": True, "failed": "the line is dead"},
            ("the map is partial: the line is dead",),
        ),
        ({"locally_linear": None, "r2_held_out": None}, ()),
        ({"samples": 100, "relative_error": 0.5}, ()),
        (
            {"samples": 100, "relative_error": 0.7},
            ("its error is 70 % of its signal after 100 samples; take more",),
        ),
        (
            {"samples": 100, "relative_error": None},
            ("its error is as large or larger than its signal after 100 samples; take more",),
        ),
        ({"samples": 90, "precise": True}, ()),
        (
            {"samples": 90, "precise": False},
            ("the precision that was asked for is not reached after 90 samples; draw more",),
        ),
    ],
)
def test_facts_become_remarks(facts: dict[str, object], said: tuple[str, ...]) -> None:
    assert remarks_of_facts(facts) == said


def test_one_warning_for_a_method_and_target_names_the_others() -> None:
    with pytest.warns(SeewhyWarning) as caught, naming(["a.jpg", "b.jpg", "c.jpg"]):
        tell(
            "LIME",
            ["image 0", "image 1", "image 2"],
            ["cat", "dog", "cow"],
            ((), ("x",), ("y", "z")),
        )
    assert str(caught[0].message) == "LIME of b.jpg, dog: x (something is said of c.jpg too)"
    tell("LIME", ["image 0"], ["cat"], ((),))


def test_what_is_warned_of_is_heard_and_put_together() -> None:
    with warnings.catch_warnings(), heard() as outer:
        warnings.simplefilter("ignore")
        warn("one")
        with heard() as inner:
            warn("two")
    assert (outer, inner) == (["one", "two"], ["two"])
    assert together([(("a",), ("b",)), (), (("a",), ("c",))], 2) == (("a",), ("b", "c"))
