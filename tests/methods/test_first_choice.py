"""What is shown where nobody names a method: what measures best, or what runs, which is said."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, ModelError, SeewhyWarning, TargetError
from seewhy.methods.explain import explain_batches
from seewhy.methods.request import Request
from tiny_models import TinyCNN, pictures, randomised


class Bessel(nn.Module):
    """A network of an operation that no rule is known for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.special.i0e(self.conv(x)).mean((2, 3)))


def test_layer_relevance_comes_first() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = seewhy.explain(net, x, targets=1)
    named = seewhy.explain(net, x, methods="layer_relevance", targets=1)
    assert [a.method for a in found] == ["layer_relevance"]
    torch.testing.assert_close(found[0].map, named[0].map, rtol=0, atol=0)
    alike = seewhy.explain(net, x, methods=["auto"], targets=1)
    torch.testing.assert_close(alike[0].map, named[0].map, rtol=0, atol=0)


def test_grad_cam_stands_in_where_relevance_cannot_and_every_batch_says_so() -> None:
    net, x = randomised(Bessel()), pictures(3)
    with pytest.raises(ModelError):
        seewhy.explain(net, x, methods="layer_relevance", targets=1)
    with pytest.warns(SeewhyWarning, match="Grad-CAM is shown instead: ") as said:
        parts = list(explain_batches(net, x, targets=1, batch_size=2))
    assert len([w for w in said if "instead" in str(w.message)]) == 1
    named = seewhy.explain(net, x, methods="grad_cam", targets=1)
    assert [a.method for part in parts for a in part] == ["grad_cam"] * 2
    maps = torch.cat([part[0].map for part in parts])
    torch.testing.assert_close(maps, named[0].map, rtol=1e-5, atol=1e-7)
    remarks = [each for part in parts for each in part[0].remarks]
    assert len(remarks) == 3
    assert all(any("Layer relevance cannot explain this model" in r for r in of) for of in remarks)


def test_a_layer_that_is_named_is_grad_cam_s() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    found = seewhy.explain(net, x, targets=1, layers="relu2")
    named = seewhy.explain(net, x, methods="grad_cam", targets=1, layers="relu2")
    assert [(a.method, a.layer) for a in found] == [("grad_cam", "relu2")]
    torch.testing.assert_close(found[0].map, named[0].map, rtol=0, atol=0)
    every = seewhy.explain(net, x, targets=1, layers="all-stages")
    assert {a.method for a in every} == {"layer_relevance"}
    account = seewhy.explain(net, x, targets=1, layers="relu2", ledger=True)
    assert (account[0].method, len(account[0].ledgers)) == ("layer_relevance", 1)


def test_what_neither_can_is_said_of_the_second_alone() -> None:
    with pytest.raises(TargetError, match="99"):
        seewhy.explain(randomised(TinyCNN()), pictures(1), targets=99)


def test_account_of_relevance_has_no_stand_in() -> None:
    with pytest.raises(ModelError):
        seewhy.explain(randomised(Bessel()), pictures(1), targets=1, ledger=True)


def test_a_request_tells_what_was_asked_and_that_nothing_was_named() -> None:
    net = randomised(TinyCNN())
    auto = Request.of(net, methods="auto", targets=1)
    named = Request.of(net, methods="layer_relevance", targets=1)
    assert (auto.told()["methods"], named.told()["methods"]) == (["auto"], ["layer_relevance"])
    assert auto.digest() != named.digest()
    smoothed = Request.of(net, methods="auto", targets=1, options={"grad_cam": {"smooth": True}})
    assert smoothed.told()["options"] == {"grad_cam": {"smooth": True}}


def test_evaluations_score_what_is_shown() -> None:
    x = pictures(2)
    for net, method in ((randomised(TinyCNN()), "layer_relevance"), (Bessel(), "grad_cam")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = seewhy.evaluate(
                randomised(net), x, metrics=["complexity", "max_sensitivity"], targets=1, chance=()
            )
        assert {row.method for row in table.rows} == {method}


def test_the_command_line_takes_it_by_name(tmp_path: Path) -> None:
    from seewhy.cli.asked import asked_methods

    assert asked_methods(["auto"]) == ["auto"]
    with pytest.raises(InputError, match="'auto' chooses one by itself"):
        asked_methods(["auto", "lrp"])
    with pytest.raises(InputError, match="'auto' chooses one by itself"):
        seewhy.explain(randomised(TinyCNN()), pictures(1), methods=["lrp", "auto"], targets=1)
