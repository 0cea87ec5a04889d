"""Names as people write them."""

from __future__ import annotations

import pytest

from seewhy.errors import InputError, TargetError, did_you_mean
from seewhy.influence.solvers import find_solver
from seewhy.maps.box_rules import RULES, find_rule
from seewhy.methods.catalog import METHODS, find_method
from seewhy.metrics.catalog import LOCALIZATION, METRICS, find_metric
from seewhy.names import (
    Spellings,
    check_classes,
    check_device,
    find_name,
    known_name,
    split_names,
    split_targets,
)
from seewhy.render.styles import find_style

FORMS = ("probability", "margin", "log_odds", "rather_than")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Grad-CAM", "grad_cam"),
        ("gradcam", "grad_cam"),
        ("grad-cam++", "grad_cam_pp"),
        ("GradCAMpp", "grad_cam_pp"),
        ("LayerCAM", "layer_cam"),
        ("integrated gradients", "integrated_gradients"),
        ("SmoothGrad", "smooth_grad"),
        ("Guided Backpropagation", "guided_backprop"),
        ("input \N{MULTIPLICATION SIGN} gradient", "input_x_gradient"),
        ("RISE", "rise"),
    ],
)
def test_methods_are_found_as_people_write_them(written: str, meant: str) -> None:
    assert find_method(written) is METHODS[meant]


def test_every_name_and_every_title_finds_its_own() -> None:
    assert all(find_method(m.title) is m for m in METHODS.values())
    assert all(type(find_metric(m.title, m)) is m for m in {**METRICS, **LOCALIZATION}.values())  # type: ignore[type-abstract]


def test_metrics_solvers_styles_and_rules_likewise() -> None:
    assert find_metric("Pixel-Flipping").name == "pixel_flipping"
    assert find_metric("Parameter randomization").name == "parameter_randomization"
    assert find_solver("EK-FAC").name == "ekfac"
    assert find_solver("LastLayer").name == "last_layer"
    assert find_style("Gray") == "grey"
    assert find_style(None) is None
    assert find_rule("CAM 2016") is not None
    assert find_rule("CAM 2016") == RULES["cam2016"]


def test_a_name_that_could_be_two_is_none() -> None:
    assert find_name("a-b", ["a_b", "A b"]) is None
    assert find_name("a_b", ["a_b", "A b"]) == "a_b"
    with pytest.raises(InputError, match=r"^thing 'x' is unknown \(accepted: a, b\)$"):
        known_name("x", ["a", "b"], what="thing")


def test_words_go_before_letters_in_a_suggestion() -> None:
    labels = ["oystercatcher", "tiger cat", "Egyptian cat", "crate", "catamaran", "bat"]
    assert did_you_mean("cat", labels) == "; did you mean 'tiger cat' or 'Egyptian cat'?"
    assert did_you_mean("cata", labels) == "; did you mean 'catamaran'?"
    assert did_you_mean("craet", labels).startswith("; did you mean 'crate'")
    assert did_you_mean("catcher", labels).startswith("; did you mean 'oystercatcher'")
    assert did_you_mean("", labels) == did_you_mean("zzz", labels) == ""


def test_lists_with_commas() -> None:
    assert split_names("grad_cam, layer_cam,rise") == ["grad_cam", "layer_cam", "rise"]
    assert split_names("one") == ["one"]
    assert split_names(",") == [","]


def test_a_label_with_a_comma_stays_one_target() -> None:
    labels = Spellings(["crane, bird", "crane, machine", "cat", "dog/wolf"])
    assert split_targets("top3,top1", labels, FORMS) == ["top3", "top1"]
    assert split_targets("crane, bird", labels, FORMS) == ["crane, bird"]
    assert split_targets("cat,crane, machine,top1", labels, FORMS) == [
        "cat",
        "crane, machine",
        "top1",
    ]
    assert split_targets("probability:crane, bird,cat", labels, FORMS) == [
        "probability:crane, bird",
        "cat",
    ]
    assert split_targets("margin:cat/crane, bird", labels, FORMS) == ["margin:cat/crane, bird"]
    several = "cat rather than crane, bird,top1 rather than the rest,crane, bird rather than top1"
    assert split_targets(several, labels, FORMS) == [
        "cat rather than crane, bird",
        "top1 rather than the rest",
        "crane, bird rather than top1",
    ]
    assert split_targets("top3,1", None, FORMS) == ["top3", "1"]


def test_classes_in_targets_are_checked() -> None:
    labels = Spellings(["tiger cat", "crane", "crane", "dog/wolf"])
    for right in (
        "top3",
        "tiger cat",
        "probability:tiger cat",
        "margin:tiger cat/0",
        "0",
        "margin:dog/wolf/tiger cat",
        "tiger cat rather than dog/wolf",
        "tiger cat rather than the rest",
        "top1 rather than top2",
        "log_odds:top2",
    ):
        check_classes(right, labels, FORMS)
    for wrong, said in (
        ("cat", "'tiger cat'"),
        ("probability:cat", "'tiger cat'"),
        ("cat rather than 0", "'cat' is not a label"),
        ("cat rather than the rest", "'tiger cat'"),
        ("rather_than:0/cat", "'cat' is not a label"),
        ("crane", r"1 \(crane\), 2"),
    ):
        with pytest.raises(TargetError, match=said):
            check_classes(wrong, labels, FORMS)
    with pytest.raises(TargetError, match="target 'cat' is not a label"):
        check_classes("margin:cat/tiger cat", labels, FORMS)


def test_devices_are_kinds_with_or_without_a_number() -> None:
    check_device("cuda:1", ("cpu", "cuda"))
    with pytest.raises(InputError, match="did you mean 'cuda'"):
        check_device("cdua", ("cpu", "cuda"))
    with pytest.raises(InputError, match=r"device 'cuda:one' cannot be used; accepted: cpu, cuda"):
        check_device("cuda:one", ("cpu", "cuda"))
