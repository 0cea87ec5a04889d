"""A request: every name found, the same for the same question, another for another, also in another process."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

import seewhy
from seewhy.errors import InputError, LayerError
from seewhy.methods.explain import explained
from seewhy.methods.request import Request
from tiny_models import TinyCNN, randomised

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def tiny() -> TinyCNN:
    return randomised(TinyCNN())


def asked(model: Any = None, **how: Any) -> Request:
    given: dict[str, Any] = {"methods": ["grad_cam", "rise"], "targets": [1, "top1"]}
    return Request.of(tiny() if model is None else model, **{**given, **how})


def test_names_are_found() -> None:
    request = asked(methods="Grad-CAM", targets=3, layers="conv1", options={"gradcam": {}})
    assert [method.name for method in request.methods] == ["grad_cam"]
    assert (request.targets, request.layers, request.options) == (
        (3,),
        ("conv1",),
        {"grad_cam": {}},
    )


def test_what_changes_no_answer_changes_no_digest() -> None:
    digest = asked().digest()
    assert digest == asked(batch_size=1, max_pixels=10).digest()
    assert digest == asked(options={"lime": {"samples": 9}}).digest()  # which is not asked for
    assert digest == asked(options={"rise": {"running": None}}).digest()


@pytest.mark.parametrize(
    "other",
    [
        {"methods": "grad_cam"},
        {"targets": [1, "top2"]},
        {"layers": "conv1"},
        {"options": {"rise": {"samples": 9}}},
        {"kwargs": {"scale": torch.ones(2)}},
        {"output": lambda found: -found},
    ],
)
def test_what_changes_an_answer_changes_the_digest(other: dict[str, Any]) -> None:
    assert asked(**other).digest() != asked().digest()


def test_other_weights_are_another_request() -> None:
    assert asked(randomised(TinyCNN(), 1)).digest() != asked().digest()


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")  # LIME's fit
@pytest.mark.parametrize("method", [*seewhy.METHODS, "smooth:grad_cam"])
def test_it_pickles_and_answers_the_same(method: str) -> None:
    request = asked(
        methods=method,
        targets=1,
        options={method: {"samples": 16}} if method in ("rise", "lime") else None,
    )
    again = pickle.loads(pickle.dumps(request))
    assert again.digest() == request.digest()
    one, two = (next(explained(each, X)) for each in (request, again))
    torch.testing.assert_close(one[0].map, two[0].map)  # masked batches go by what is fast


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"methods": []}, InputError, "nothing to explain"),
        ({"targets": []}, InputError, "nothing to explain"),
        ({"batch_size": 0}, InputError, "batch_size=0 is too small"),
        ({"layers": []}, LayerError, "names no layer"),
        ({"layers": "conv9"}, LayerError, "conv9"),
    ],
)
def test_what_cannot_be_used_is_said(how: dict[str, Any], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        asked(**how)
