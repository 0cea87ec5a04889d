"""A class against others: closed forms in float64, whatever the model's numbers are, and how they are written."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.targets import (
    Counterfactual,
    Logit,
    LogOdds,
    Margin,
    Numbers,
    RatherThan,
    phrase,
    resolve,
)
from seewhy.errors import ModelError, TargetError
from seewhy.methods.told import told_value
from tiny_models import TinyCNN, pictures, randomised

Z = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 40.0, -1.0, 2.0]], dtype=torch.float64)
LABELS = ["tabby", "tiger cat", "TV/monitor", "crane, bird"]
LOGITS, CHANCES, SIGMOIDS = (Numbers(each) for each in ("logits", "probabilities", "sigmoids"))
SEVERAL = Numbers("logits", multi_label=True)


def scored(target: Any, z: Tensor = Z, numbers: Numbers = LOGITS, labels: Any = LABELS) -> Tensor:
    (found,) = resolve(target, z, labels, numbers=numbers)
    return found.score(z)


def odds(z: Tensor, k: int) -> Tensor:
    """log p / (1 - p) of the softmax, by what is not k."""
    others = [z[:, i].exp() for i in range(z.shape[1]) if i != k]
    return z[:, k] - torch.stack(others).sum(0).log()


def test_log_odds_are_the_logit_less_the_logsumexp_of_the_others() -> None:
    for k, label in enumerate(LABELS):
        expected = odds(Z, k)
        for same in (LogOdds(k), f"log_odds:{label}", f"{label} rather than the rest"):
            torch.testing.assert_close(scored(same), expected)
        torch.testing.assert_close(LogOdds(k, CHANCES)(Z.softmax(1)), expected)
        torch.testing.assert_close(LogOdds(k, LOGITS)(Z.log_softmax(1)), expected)
    p = Z[:1].softmax(1)
    torch.testing.assert_close(odds(Z[:1], 3), (p / (1 - p)).log()[:, 3])


def test_log_odds_stay_exact_where_the_model_is_sure() -> None:
    sure = torch.tensor([[60.0, 0.0, 1.0]])
    assert float(LogOdds(0, LOGITS)(sure)) == pytest.approx(58.6867, abs=1e-4)


def test_gradient_is_one_less_what_the_others_have() -> None:
    z = Z.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(LogOdds((0, 3), LOGITS)(z).sum(), z)
    for row, k in enumerate((0, 3)):
        rest = Z[row].clone()
        rest[k] = -torch.inf
        expected = -rest.softmax(0)
        expected[k] = 1
        torch.testing.assert_close(slopes[row], expected)


@pytest.mark.parametrize("numbers", [SEVERAL, SIGMOIDS])
def test_where_classes_do_not_exclude_each_other_it_is_the_logit(numbers: Numbers) -> None:
    z = Z[:1]
    given = z.sigmoid() if numbers is SIGMOIDS else z
    torch.testing.assert_close(LogOdds(3, numbers)(given), z[:, 3])
    torch.testing.assert_close(RatherThan(3, 1, numbers)(given), z[:, 3] - z[:, 1])
    (found,) = resolve("log_odds:tabby", given, LABELS, numbers=numbers)
    assert phrase(found, 0, LABELS.__getitem__) == "tabby rather than not"


@pytest.mark.parametrize("gives", ["logits", "probabilities", "sigmoids"])
def test_of_a_single_column_it_is_the_logit(gives: Any) -> None:
    z = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    given = z if gives == "logits" else z.sigmoid()
    torch.testing.assert_close(LogOdds(0, Numbers(gives))(given), z[:, 0])


def test_rather_than_is_the_difference_of_logits() -> None:
    expected = Z[:, 0] - Z[:, 1]
    for same in (
        RatherThan(0, 1),
        "tabby rather than tiger cat",
        "Tabby  rather_than tiger cat",
        "rather_than:tabby/tiger cat",
        "0 rather than 1",
    ):
        torch.testing.assert_close(scored(same), expected)
        torch.testing.assert_close(scored(same, Z.softmax(1), CHANCES), expected)
    assert torch.equal(scored(RatherThan((0, 3), (1, 0))), Margin((0, 3), (1, 0))(Z))
    assert torch.equal(RatherThan(0, 1, Numbers("score"))(Z), expected)
    # a slash belongs to a name
    assert torch.equal(scored("TV/monitor rather than tabby"), Z[:, 2] - Z[:, 0])


def test_ranks_are_those_of_each_image() -> None:
    expected = torch.stack([Z[0, 3] - Z[0, 0], Z[1, 1] - Z[1, 3]])
    for same in ("top1 rather than top2", "rather_than:top1/top2", "margin:top1/top2"):
        torch.testing.assert_close(scored(same), expected)
    torch.testing.assert_close(
        scored("tabby rather than top1"), torch.tensor([-2.0, -40.0]).double()
    )
    (found,) = resolve("top1 rather than top2", Z, LABELS, numbers=LOGITS)
    assert (found.name, found.indices) == ("rather_than(top1, top2)", (3, 1))
    assert phrase(found, 0, LABELS.__getitem__) == "crane, bird rather than tabby"
    first, second = resolve("log_odds:top2", Z, LABELS, numbers=LOGITS)
    assert (first.name, second.name) == ("log_odds(top1)", "log_odds(top2)")
    torch.testing.assert_close(second.score(Z), torch.stack([odds(Z, 0)[0], odds(Z, 3)[1]]))
    (rest,) = resolve("top1 rather than the rest", Z, LABELS, numbers=LOGITS)
    assert phrase(rest, 1, LABELS.__getitem__) == "tiger cat rather than the rest"
    with pytest.raises(TargetError, match="'top9' asks for 9 classes, the model has 4"):
        scored("top1 rather than top9")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tabby rather than", "is not a label"),
        ("tabby rather than dog", "'dog' is not a label"),
        ("dog rather than the rest", "'dog' is not a label"),
        ("rather_than:tabby", "needs two classes: 'rather_than:tabby/tiger cat'"),
        ("tabby rather than tabby", "one class twice; give two classes, or 'log_odds:tabby'"),
        ("tabby rather than 9", "target 9 is not a class"),
    ],
)
def test_words_that_say_no_two_classes(target: str, said: str) -> None:
    with pytest.raises(TargetError, match=said) as raised:
        scored(target)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("gives", ["score", "embedding", "records", None])
def test_what_has_no_odds_says_so(gives: Any) -> None:
    said = "has no probability" if gives else "may be probabilities or scores"
    for target in (LogOdds(0, Numbers(gives)), RatherThan(0, 1, Numbers(gives))):
        if gives == "score" and isinstance(target, RatherThan):
            continue
        with pytest.raises(ModelError, match=said) as raised:
            target(Z)
        assert "\n" not in str(raised.value)


def test_a_name_comes_first() -> None:
    labels = ["a", "b", "a rather than b", "c rather than the rest"]
    assert torch.equal(scored("a rather than b", labels=labels), Z[:, 2])
    assert torch.equal(scored("c rather than the rest", labels=labels), Z[:, 3])


def test_they_are_pickled_told_apart_and_cut() -> None:
    several = [
        LogOdds(0),
        LogOdds(1),
        RatherThan(0, 1),
        RatherThan(1, 0),
        Margin(0, 1),
        Logit(0),
        Counterfactual(0),
    ]
    assert [pickle.loads(pickle.dumps(each)) for each in several] == several
    told = [repr(told_value(each)) for each in several]
    assert len(set(told)) == len(told)
    assert RatherThan((0, 1), 2).rows([1]) == RatherThan((1,), 2)
    assert LogOdds((0, 3)).rows([1, 1]).index == (3, 3)


def test_a_softmax_inside_the_model_changes_no_map() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 16)
    inside = nn.Sequential(net, nn.Softmax(1))
    for target in ("log_odds:1", "1 rather than 3"):
        plain = seewhy.methods.hires_cam(net, x, target, layer="relu2")
        found = seewhy.methods.hires_cam(inside, x, target, layer="0.relu2")
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_signed_maps_turn_round_with_the_question() -> None:
    """What speaks for one speaks against the other; Grad-CAM's ReLU shows each side by itself."""
    net, x = randomised(TinyCNN()), pictures(2, 16)
    for name in ("hires_cam", "cam", "input_x_gradient"):
        method = seewhy.METHODS[name]
        one, other = (method(net, x, t) for t in ("1 rather than 3", "3 rather than 1"))
        assert (one > 0).any()
        assert (one < 0).any()
        torch.testing.assert_close(one, -other)
        torch.testing.assert_close(one, method(net, x, 1) - method(net, x, 3), rtol=1e-3, atol=1e-5)
    whole = seewhy.methods.cam(net, x, "1 rather than 3")
    for target, sign in (("1 rather than 3", 1), ("3 rather than 1", -1)):
        share = seewhy.methods.grad_cam(net, x, target) * whole[0].numel()
        torch.testing.assert_close(share, (sign * whole).clamp(min=0), rtol=1e-3, atol=1e-5)
