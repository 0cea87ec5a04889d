"""Names are checked before anything slow is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seewhy.cli import run
from seewhy.cli.asked import asked_fuse, asked_methods, check_options
from seewhy.errors import InputError

_WRONG = [
    (
        ["explain", "x.jpg", "--method", "grad_cma"],
        "method 'grad_cma' is unknown; did you mean 'grad_cam'",
    ),
    (["explain", "x.jpg", "--method", "rise,grad_cma"], "method 'grad_cma' is unknown"),
    (["explain", "x.jpg", "--method", "smooth:gard_cam"], "method 'gard_cam' is unknown"),
    (
        ["explain", "x.jpg", "--style", "heatmpa"],
        "style 'heatmpa' is unknown; did you mean 'heatmap'",
    ),
    (["explain", "x.jpg", "--crop", "non"], "crop 'non' is unknown; did you mean 'none'"),
    (["demo", "--resize", "stretch"], "resize 'stretch' is unknown (accepted: squash, pad, or the"),
    (
        ["localize", "x.jpg", "--crop", "none", "--resize", "300"],
        "crop 'none' shows the whole photo, and resize 300 is for one that is cropped",
    ),
    (["explain", "x.jpg", "--device", "cdua"], "device 'cdua' cannot be used; did you mean 'cuda'"),
    (["explain", "x.jpg", "--device", "meta"], "device 'meta' cannot be used"),
    (["explain", "x.jpg", "--target", "cat"], "did you mean 'tiger cat' or 'Persian cat'"),
    (["explain", "x.jpg", "--target", "top3,cat"], "target 'cat' is not a label"),
    (
        ["explain", "x.jpg", "-M", "rise", "-O", "rise.sampels=3"],
        "rise has no option 'sampels'; did you mean 'samples'",
    ),
    (["explain", "x.jpg", "-M", "rise", "-O", "rise.running=3"], "rise has no option 'running'"),
    (
        ["explain", "x.jpg", "-O", "rise.samples=3"],
        "of a method that is not asked for; add --method rise to layer_relevance, grad_cam",
    ),
    (["explain", "x.jpg", "-O", "samples=3"], "is not METHOD.OPTION=VALUE"),
    (["explain", "x.jpg", "--fuse", "method"], "--fuse method would fuse auto with nothing"),
    (
        ["explain", "x.jpg", "--fuse", "layer", "-l", "bn2"],
        "--fuse layer would fuse one layer with nothing",
    ),
    (
        ["explain", "x.jpg", "--fuse", "colour"],
        "--fuse 'colour' cannot be fused over; use 'layer' or 'method'",
    ),
    (
        ["evaluate", "x.jpg", "--metric", "delition"],
        "metric 'delition' is unknown; did you mean 'deletion'",
    ),
    (
        ["evaluate", "x.jpg", "--metric", "deletion:stpe=9"],
        "deletion has no option 'stpe'; did you mean 'step'",
    ),
    (
        ["localize", "x.jpg", "--rule", "cam2061"],
        "rule 'cam2061' is unknown; did you mean 'cam2016'",
    ),
    (["influence", "fit", "-d", "scenes", "--solver", "lastlyer"], "solver 'lastlyer' is unknown"),
    (["influence", "fit", "-d", "scenes", "-O", "l3=1"], "solver 'last_layer' has no option 'l3'"),
    (["train", "--device", "cdua"], "device 'cdua' cannot be used"),
    (["explain", "nowhere.jpg"], "image 'nowhere.jpg' does not exist"),
    (["explain", "no/where.jpg"], "does not exist: there is no folder 'no'; give"),
    (["localize", "nowhere.jpg", "nor/here.jpg"], "image 'nowhere.jpg' does not exist"),
    (["evaluate", "nowhere.jpg"], "image 'nowhere.jpg' does not exist"),
    (["influence", "query", "nowhere.jpg"], "image 'nowhere.jpg' does not exist"),
    (["explain", "~/no/where.jpg"], f"image '{Path.home()}/no/where.jpg' does not exist"),
    (["explain", "https://a.org/b.jpg"], "image 'https://a.org/b.jpg' is a web address"),
    (["explain", "x.jpg", "--target", "1000"], "target 1000 is not a class of the model"),
    (["explain", "x.jpg", "--out"], "('seewhy explain --help' lists what there is)"),
    (["influence", "query", "--out"], "('seewhy influence query --help' lists what there is)"),
]


@pytest.mark.parametrize(("arguments", "said"), _WRONG)
def test_a_wrong_name_is_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert said in told.err


def test_none_of_it_loads_torch() -> None:
    code = f"""
import sys
from seewhy.cli import run
for arguments, _ in {_WRONG!r}:
    assert run(arguments) == 1, arguments
    assert not {{"torch", "numpy", "timm", "PIL"}} & sys.modules.keys(), arguments
"""
    begun = time.process_time()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert time.process_time() - begun < 5


def test_the_methods_are_listed_without_loading_torch() -> None:
    code = """
import sys
from seewhy.cli import run
assert run(["methods"]) == 0
assert not {"torch", "numpy", "timm", "PIL"} & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "samples=4000, cells=7" in done.stdout.decode()


def test_names_as_people_write_them_and_lists() -> None:
    assert asked_methods(["Grad-CAM,LayerCAM", "smooth:GradCAM++"]) == [
        "grad_cam",
        "layer_cam",
        "smooth:grad_cam_pp",
    ]
    check_options(["RISE.samples=3", "smooth:grad_cam.noise=1"], ["rise", "smooth:grad_cam"])
    assert asked_fuse("layer", ["grad_cam"], ["all-stages"]) == "layer"
    assert asked_fuse("method", ["grad_cam", "rise"], None) == "method"
    assert asked_fuse(None, ["grad_cam"], None) is None
    with pytest.raises(InputError, match="would fuse grad_cam with nothing"):
        asked_fuse("method", ["grad_cam", "grad_cam"], None)


def test_a_usage_error_points_to_the_help_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["explain", "--nope"]) == 1
    assert "('seewhy explain --help' lists what there is)" in capsys.readouterr().err
    assert run(["influence", "query", "--nope"]) == 1
    assert "('seewhy influence query --help' lists what there is)" in capsys.readouterr().err
    for command in (["-h"], ["explain", "-h"], ["influence", "fit", "-h"]):
        assert run(command) == 0
        assert "Usage" in capsys.readouterr().out
