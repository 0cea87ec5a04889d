"""What an answer's numbers are: as is said, as they look, and what is not known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from seewhy.engine.call import Call
from seewhy.engine.targets.classes import Probability
from seewhy.engine.targets.numbers import Numbers, looks_like, numbers_of, said_by
from seewhy.errors import InputError, ModelError, SeewhyWarning, TargetError
from seewhy.methods.explain import explain
from seewhy.models.model import wrap
from tiny_models import Called, pictures

SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0]])


def test_probabilities_of_each_kind() -> None:
    softmax, sigmoids = SCORES.softmax(1), SCORES.sigmoid()
    for numbers, given, expected in (
        (Numbers("logits"), SCORES, softmax),
        (Numbers("logits"), softmax.log(), softmax),
        (Numbers("probabilities"), softmax, softmax),
        (Numbers("logits", multi_label=True), SCORES, sigmoids),
        (Numbers("sigmoids", multi_label=True), sigmoids, sigmoids),
        (Numbers("logits"), SCORES[:, :1], sigmoids[:, :1]),
        (Numbers("sigmoids"), sigmoids[:, :1], sigmoids[:, :1]),
    ):
        torch.testing.assert_close(numbers.probabilities(given), expected)
        torch.testing.assert_close(Probability(0, numbers)(given), expected[:, 0])
    assert Numbers("probabilities").probabilities(softmax.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("gives", "said"), [("score", "a score"), ("embedding", "an embedding"), (None, r"in \[0, 1\]")]
)
def test_what_has_no_probability_says_so(gives: Any, said: str) -> None:
    with pytest.raises(ModelError, match=rf"{said}.*gives="):
        Numbers(gives).probabilities(SCORES)


@pytest.mark.parametrize(
    ("scores", "gives"),
    [
        (SCORES, "logits"),
        (SCORES[:, 0], None),
        (SCORES[:, :1], None),
        (SCORES.softmax(1) * 100, None),
        (SCORES.softmax(1) * 90, "logits"),
        (torch.tensor([[3.0, 0.0, 2.0]]), None),
        (torch.tensor([[3.0, 0.0, -2.0]]), "logits"),
        (SCORES.softmax(1), "probabilities"),
        (SCORES.half().softmax(1), "probabilities"),
        (
            torch.rand(2, 1000, generator=torch.Generator().manual_seed(0)).bfloat16().softmax(1),
            "probabilities",
        ),
        (torch.rand(2, 5, 4, 4).softmax(1), "probabilities"),
        (SCORES.sigmoid(), None),
        (SCORES.sigmoid()[:, :1], None),
        (SCORES.sigmoid()[:, 0], None),
        (torch.tensor([[0.5, 0.5], [0.5, 0.6]]), None),
        (torch.tensor([[3, 4]]), None),
        (torch.tensor([1.0 + 1e-3, 0.2])[None], "logits"),
    ],
)
def test_what_numbers_look_like(scores: Tensor, gives: str | None) -> None:
    assert looks_like(scores) == gives


class Ended(nn.Module):
    def __init__(self, last: nn.Module, **said: Any) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(3, 3), last
        for name, value in said.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(x.mean((2, 3))))


def config(problem: str | None) -> SimpleNamespace:
    return SimpleNamespace(problem_type=problem)


@pytest.mark.parametrize(
    ("module", "gives"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), "probabilities"),
        (nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Sigmoid()))), "sigmoids"),
        (nn.Sequential(nn.Linear(3, 3), nn.LogSoftmax(1)), "logits"),
        (nn.Sequential(nn.Sigmoid(), nn.Linear(3, 3)), "logits"),
        (nn.Sequential(), None),
        (Ended(nn.Softmax(1)), None),
        (nn.Sequential(nn.Flatten(), Ended(nn.Softmax(1), pretrained_cfg={})), "probabilities"),
        (Ended(nn.ReLU(), pretrained_cfg={"mean": 0}, num_classes=3), "logits"),
        (
            Ended(nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()), pretrained_cfg={}, num_classes=3),
            "sigmoids",
        ),
        (
            Ended(nn.Sequential(nn.Linear(3, 1), nn.Dropout()), pretrained_cfg={}, num_classes=3),
            "logits",
        ),
        (Ended(nn.Identity(), pretrained_cfg={"mean": 0}, num_classes=3), "embedding"),
        (Ended(nn.Identity(), pretrained_cfg={"mean": 0}, num_classes=0), "embedding"),
        (Ended(nn.Identity(), config=config("regression")), "score"),
        (Ended(nn.Identity(), config=SimpleNamespace(problem_type=None, num_labels=1)), "score"),
        (Ended(nn.ReLU(), config=config("single_label_classification")), "logits"),
        (Ended(nn.Sigmoid(), config=config("multi_label_classification")), "sigmoids"),
        (Ended(nn.Identity(), config=config(None)), None),
    ],
)
def test_what_a_module_says_of_itself(module: nn.Module, gives: str | None) -> None:
    assert said_by(module) == gives


@pytest.mark.parametrize(
    ("scores", "doubt"),
    [
        (SCORES.sigmoid(), r"lie in \[0, 1\], and may be probabilities or scores"),
        (
            SCORES[:, :1],
            "are one for each picture, and may be a logit or the value of a regression",
        ),
        (
            SCORES.softmax(1) * 100,
            "sum to 100, and may be percentages: say output=lambda p: p / 100",
        ),
        (torch.tensor([[3.0, 0.0, 2.0]]), "are whole numbers, and may be counts"),
        (torch.tensor([[3, 4]]), "are whole numbers, and may be classes or counts"),
    ],
)
def test_doubtful_numbers_are_asked_about(scores: Tensor, doubt: str) -> None:
    numbers = numbers_of(Call(Called(nn.Linear(3, 3))), scores)
    with pytest.raises(ModelError, match=f"the model's numbers {doubt}.*gives="):
        numbers.probabilities(scores.float())


def test_a_head_of_one_column_is_asked_about_unless_somebody_says_it() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(3, 1))
    assert numbers_of(Call(head), SCORES[:, :1]).gives is None
    assert numbers_of(Call(head, gives="logits"), SCORES[:, :1]).gives == "logits"
    head.gives = "logits"
    assert numbers_of(Call(head), SCORES[:, :1]).gives == "logits"
    assert (
        numbers_of(Call(nn.Sequential(head, nn.Sigmoid())), SCORES[:, :1].sigmoid()).gives
        == "sigmoids"
    )


def test_a_familys_head_of_ones_own_class_is_looked_at() -> None:
    """Its `forward` may end in a sigmoid that is no part of it."""
    module = torchvision.models.squeezenet1_1(num_classes=3)
    module.classifier = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), Called(nn.Linear(512, 3))
    )
    assert numbers_of(Call(module), SCORES.sigmoid()).gives is None
    assert numbers_of(Call(module), SCORES).gives == "logits"


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2"])
@pytest.mark.parametrize(
    ("last", "gives"),
    [(None, "logits"), (nn.Softmax(1), "probabilities"), (nn.Sigmoid(), "sigmoids")],
)
def test_families_with_a_head_of_ones_own(name: str, last: nn.Module | None, gives: str) -> None:
    for make in (torchvision.models.get_model, timm.create_model):
        if make is timm.create_model and name != "resnet18":
            continue
        with torch.device("meta"):
            module = make(name)
        if last is not None:
            head = "fc" if hasattr(module, "fc") else "classifier"
            setattr(module, head, nn.Sequential(nn.Linear(512, 3), last))
        assert said_by(module) == gives


def test_a_familys_head_that_ends_in_a_function_is_looked_at() -> None:
    """No logits of several classes sum to 1 in each row; what the user says is believed, with a remark."""
    module = Ended(Called(nn.Linear(3, 3)), pretrained_cfg={})
    assert numbers_of(Call(module), SCORES.softmax(1)).gives == "probabilities"
    assert numbers_of(Call(module), SCORES).gives == "logits"
    with pytest.warns(SeewhyWarning, match="gives='logits', but .* sum to 1, as probabilities do"):
        assert numbers_of(Call(module, gives="logits"), SCORES.softmax(1)).gives == "logits"


def test_what_numbers_looked_like_is_taken_back_beyond_the_range_of_probabilities() -> None:
    """Weights that were trained or loaded since may give logits, as those before them did unseen."""
    for first in (SCORES.sigmoid(), SCORES.softmax(1)):
        call = Call(Called(nn.Linear(3, 3)))
        assert numbers_of(call, first).gives != "logits"
        assert numbers_of(call, SCORES).gives == "logits"
        assert numbers_of(call, first).gives == "logits"


def test_more_is_said_of_a_wrapped_model() -> None:
    model = wrap(nn.Linear(3, 3), labels=["a", "b", "c"])
    assert wrap(model) is model
    said = wrap(model, gives="score", multi_label=True)
    assert (said.module, said.labels, said.gives, said.multi_label) == (
        model.module,
        model.labels,
        "score",
        True,
    )
    assert wrap(said, labels=[]).labels is None
    with pytest.raises(InputError, match=r"wrap the function or session anew"):
        wrap(wrap(lambda x: x), takes="array")


def test_several_labels_as_a_configuration_says() -> None:
    assert wrap(Ended(nn.Identity(), config=config("multi_label_classification"))).multi_label
    assert not wrap(Ended(nn.Identity(), config=config("single_label_classification"))).multi_label


def test_the_first_answer_decides_and_is_remembered() -> None:
    call = Call(Ended(nn.Softmax(1)))
    assert numbers_of(call, SCORES.softmax(1)).gives == "probabilities"
    assert numbers_of(call, SCORES.sigmoid()).gives == "probabilities"
    other = Call(call.module, output=lambda said: said.log())
    assert numbers_of(other, SCORES).gives == "logits"


def test_what_is_said_comes_first_and_is_checked() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Softmax(1))
    assert numbers_of(Call(module, gives="score"), SCORES).gives == "score"
    with pytest.raises(
        ModelError,
        match=r"gives='probabilities', but the model's numbers are -1 to 3, not in \[0, 1\]",
    ):
        numbers_of(Call(module, gives="probabilities"), SCORES)
    with pytest.raises(
        ModelError, match=r"gives='probabilities', but a picture's sum to 1\.77; give 'sigmoids'"
    ):
        numbers_of(Call(module, gives="probabilities"), SCORES.sigmoid())
    with pytest.raises(
        InputError, match="gives='percent' is not known; use 'logits', 'probabilities'"
    ):
        wrap(module, gives="percent")  # type: ignore[arg-type]


def test_names_of_classes_are_no_scores() -> None:
    with pytest.raises(
        TargetError,
        match="of int64 numbers, names of classes and no scores; give what returns scores",
    ):
        Probability(1)(torch.tensor([[1], [2]]))


def test_an_answer_in_a_models_own_adapter_is_looked_at() -> None:
    """What a module says of itself is not said of what a function makes of it."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert (
        numbers_of(Call(module, output=lambda said: said.softmax(1)), SCORES.softmax(1)).gives
        == "probabilities"
    )
    assert numbers_of(Call(Called(module)), module(pictures(1, 2))).gives == "logits"


def test_one_score_for_each_image_is_predicted_too() -> None:
    class Single(nn.Module):
        gives = "sigmoids"

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3)).sigmoid()

    x = pictures(2, 3)
    found = explain(Single(), x, methods="saliency")
    said = [float(prediction.probability or 0) for (prediction,) in found.predictions]
    torch.testing.assert_close(torch.tensor(said), x.mean((1, 2, 3)).sigmoid())
