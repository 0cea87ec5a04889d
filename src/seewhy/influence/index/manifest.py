"""What an index says of itself: enough to make it again, to go on with it, and to refuse what does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...arguments import brief
from ...data.dataset import LabeledImages
from ...data.disk import Json, own_version
from ...data.images import ImageLike, read_photo
from ...data.opened import MAX_PIXELS
from ...data.preprocess import Preprocess
from ...engine.call import Call
from ...engine.inputs import settled_input
from ...engine.pictures import check_input
from ...engine.targets.classes import class_scores
from ...engine.targets.names import ClassNames
from ...engine.targets.numbers import numbers_of
from ...errors import InputError, ModelError
from ...models.call import call_of, labels_of
from ...models.classes import in_classes_of
from ...models.model import Model
from ...names import as_number
from ...remarks import warn
from ..gradients.losses import loss_values, same_values
from ..modes import ordinary
from ..problem import Loss, check_loaded, cross_entropy
from ..solvers.solver import Solver
from . import fingerprint
from .building import key_of
from .examples import Absent, Examples, Joined, TrainData, as_examples

ModelLike = Model | nn.Module | Call
Head = Json
_DECIDES = (
    "solver",
    "settings",
    "loss",
    "l2",
    "parameters",
    "learning_rates",
    "dtype",
    "preprocess",
)
_SHOWN = 3
_SAME_ANSWER = 0.02  # of the largest score: what another device or precision may change


def calls_of(models: Sequence[ModelLike], whole_numbers: str | None = None) -> tuple[Call, ...]:
    """How models or modules are called; `whole_numbers` is the type that they take alone, as a manifest has it."""
    whole = None if whole_numbers is None else getattr(torch, whole_numbers)
    return tuple(replace(call, whole_numbers=whole) for call in map(call_of, models))


def trained_calls(models: Sequence[ModelLike], head: Head) -> tuple[Call, ...]:
    """The same of the models of an index, with weights that gradients can use."""
    calls = calls_of(models, head.get("whole_numbers"))
    return tuple(replace(call, module=ordinary(call.module)) for call in calls)


def modules_of(models: Sequence[ModelLike]) -> tuple[nn.Module, ...]:
    """What is called."""
    return tuple(call.module for call in calls_of(models))


def outputs_of(call: Call, images: Tensor) -> Tensor:
    """The model's class scores (B, K), without a graph."""
    return class_scores(call.answer(images)).cpu()


def chances_of(call: Call, images: Tensor) -> Tensor:
    """The probabilities of the model's classes (B, K)."""
    outputs = outputs_of(call, images)
    return numbers_of(call, outputs).probabilities(outputs)


def said_of_noise(calls: Sequence[Call], shape: Sequence[int]) -> list[list[float] | None]:
    """What models say of a picture of drawn numbers (C, H, W): which of their outputs is meant shows in it.

    None for a model that does not say the same twice, or no number.
    """
    drawn = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    pixels, noise = (drawn * 255).round(), drawn - 0.5
    said = [
        [outputs_of(call, pixels if call.whole_numbers else noise)[0].double() for _ in range(2)]
        for call in calls
    ]
    return [
        once.tolist() if once.isfinite().all() and torch.equal(once, again) else None
        for once, again in said
    ]


def check_said(stored: Head, said: Sequence[list[float] | None], folder: object) -> None:
    """Refuses a model that answers otherwise than the one of the index, though its weights are the same.

    Raises:
        InputError: it does, as with another `output=`.
    """
    pairs = zip(stored["said_of_noise"], said, strict=True)
    if not all(
        then is None or now is None or _answers_nearly_alike(then, now) for then, now in pairs
    ):
        raise InputError(
            f"model does not fit the index in '{folder}': its weights are the same, but it answers otherwise; give it "
            "the output= that it was fit with, or fit another index"
        )


def _answers_nearly_alike(then: list[float], now: list[float]) -> bool:
    before = torch.tensor(then, dtype=torch.float64)
    after = torch.tensor(now, dtype=torch.float64)
    same_classes = before.shape == after.shape
    return same_classes and bool(
        (before - after).abs().amax() <= _SAME_ANSWER * before.abs().amax()
    )


def settings_of(
    l2: float,
    parameters: Sequence[str] | None,
    learning_rates: Sequence[float] | None,
    dtype: str | None,
    shard_rows: int | None,
    about: Mapping[str, object] | None,
) -> Head:
    """The arguments of `fit` that go into a manifest, as JSON has them."""
    return {
        "l2": l2,
        "parameters": None if parameters is None else list(parameters),
        "learning_rates": None if learning_rates is None else list(learning_rates),
        "dtype": dtype,
        "shard_rows": shard_rows,
        "about": dict(about or {}),
    }


def describe_index(
    models: Sequence[ModelLike],
    examples: Examples,
    solver: Solver,
    loss: Loss,
    settings: Head,
) -> Head:
    """The manifest of an index before it is made; `settings` as from `settings_of`."""
    modules, model = modules_of(models), models[-1]
    check_loaded(modules)
    example = examples[0][0]
    whole_numbers = _whole_numbers(calls_of(models)[-1], example)
    calls = calls_of(models, whole_numbers)
    call = calls[-1]
    said = outputs_of(call, example[None])
    outputs = said.shape[1]
    if loss is cross_entropy:
        _check_logits(call, said)
    own = labels_of(model)
    if own is not None:
        own.check_width(outputs)
    known = [names for names in (own, examples.classes) if names and len(names) == outputs]
    head: Head = {
        "seewhy": own_version(),
        "solver": solver.name,
        "settings": dict(solver.settings),
        "loss": loss_name(loss),
        "loss_values": loss_values(loss, outputs, _weight(modules[-1])),
        **settings,
        "preprocess": repr(preprocess_of(model)),
        "model": fingerprint.of_modules(modules),
        "outputs": outputs,
        "shape": list(example.shape),
        "said_of_noise": said_of_noise(calls, example.shape),
        "whole_numbers": whole_numbers,
        "classes": list(known[0]) if known else None,
        "data": [examples.fingerprint()],
        "removed": [],
        "shards": [],
    }
    return {**head, "curvature": curvature_key(head, solver)}


def _whole_numbers(call: Call, example: Tensor) -> str | None:
    """The type of numbers that the model takes alone, where a picture (C, H, W) shows it."""
    whole = settled_input(call, example[None])[0].whole_numbers
    return None if whole is None else str(whole).removeprefix("torch.")


def _check_logits(call: Call, outputs: Tensor) -> None:
    """Refuses what the softmax cross entropy is not of: a second softmax would be another loss than was trained."""
    found = numbers_of(call, outputs)
    if found.gives != "logits":
        numbers = found.gives or f"numbers that {found.doubt}"
        raise InputError(
            f"the model gives {numbers}, and the softmax cross entropy is of logits; give the part before its softmax, "
            "output=lambda p: p.log() of probabilities, or loss= as it was trained"
        )


def curvature_key(head: Head, solver: Solver) -> str:
    """What the curvature and the rows depend on, short; on the data only where the solver looks at them."""
    base = [head[name] for name in (*_DECIDES, "model")]
    return key_of(base, (head["data"], head["removed"]) if solver.passes else None)


def self_key(head: Head) -> str:
    """What self-influences depend on, short."""
    return key_of(head["curvature"], head["data"], head["removed"], "self")


def loss_name(loss: Loss) -> str:
    """What a loss is called."""
    return str(getattr(loss, "__qualname__", type(loss).__name__))


def check_models(head: Head, models: Sequence[ModelLike], loss: Loss, folder: object) -> None:
    """Refuses models, an output of theirs or a loss that are not those of the index."""
    fingerprint.check_model(head["model"], fingerprint.of_modules(modules_of(models)), folder)
    check_said(
        head, said_of_noise(calls_of(models, head.get("whole_numbers")), head["shape"]), folder
    )
    check_loss(head, loss, modules_of(models)[-1], folder)


def check_loss(head: Head, loss: Loss, module: nn.Module, folder: object) -> None:
    """Refuses a loss that has another name, or gives other values, than the one of the index."""
    if loss_name(loss) != head["loss"]:
        raise InputError(
            f"the index in '{folder}' was fit with loss={head['loss']}; give it to open() as loss="
        )
    _check_values(head, loss_values(loss, head["outputs"], _weight(module)), folder)


def _weight(module: nn.Module) -> Tensor:
    return next((p.detach() for p in module.parameters()), torch.zeros(()))


def _check_values(stored: Head, found: Sequence[float], folder: object) -> None:
    if not same_values(stored.get("loss_values", found), found):
        raise InputError(
            f"'{folder}' holds an index with another loss={stored['loss']!r}, which gives other values for the same "
            "outputs; give that one, or fit into another folder"
        )


def check_options(batch_size: int, shard_rows: int | None) -> None:
    """Says which option of `fit` is out of range."""
    for name, value in (("batch_size", batch_size), ("shard_rows", shard_rows)):
        if value is not None and value < 1:
            raise InputError(f"{name}={value} cannot be used; accepted: 1 or more")


def inputs_of(model: ModelLike, images: Any) -> Tensor:
    """Test pictures as the model takes them, (T, C, H, W), from such a tensor or from photos."""
    if isinstance(images, Tensor):
        check_input(images)
        return images
    one = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) != 4
    several = isinstance(images, Iterable) and not one
    photos = [model_photo(model, image) for image in (images if several else [images])]
    if not photos:
        raise InputError(f"images={brief(images)} is empty; give at least one photo")
    return torch.stack([preprocess(photo)[0] for photo, preprocess in photos])


def model_photo(
    model: ModelLike, image: ImageLike, *, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, Preprocess]:
    """A photo, as large as the model needs it at most, and how it becomes the model's input.

    Raises:
        InputError: the model does not say how.
    """
    preprocess = preprocess_of(model)
    if preprocess is None:
        raise InputError(
            "the model has no preprocess, which photos need; give a tensor (T, C, H, W), or wrap() it"
        )
    return read_photo(image, max_pixels=max_pixels, least=preprocess.enough).picture, preprocess


def same(stored: Head, given: Head, folder: object) -> Head:
    """The manifest of an index that is gone on with, as it is stored but for what is newly said of it (`about`).

    Raises:
        InputError: it is another one; it names what differs.
    """
    fingerprint.check_model(stored["model"], given["model"], folder)
    for name in _DECIDES:
        if stored[name] != given[name]:
            raise InputError(
                f"'{folder}' holds an index with {name}={stored[name]!r}, not {given[name]!r}; give another out=, "
                "or the same settings"
            )
    check_said(stored, given["said_of_noise"], folder)
    _check_values(stored, given["loss_values"], folder)
    if stored["removed"]:
        raise InputError(
            f"'{folder}' holds an index from which {len(stored['removed'])} examples were removed; open it, or give "
            "another out="
        )
    if len(stored["data"]) > 1:
        raise InputError(
            f"'{folder}' holds an index that was added to; open it, or give another out="
        )
    fingerprint.check_data(stored["data"][0], given["data"][0], folder)
    return {**stored, "about": given["about"] or stored["about"]}


def class_names(head: Head) -> ClassNames:
    """A name for each of the model's outputs."""
    return ClassNames.of(head["classes"]) or ClassNames(
        f"class {i}" for i in range(head["outputs"])
    )


def tell_classes(examples: Examples, head: Head) -> None:
    """Warns of classes without any training example."""
    names = class_names(head)
    empty = (
        []
        if examples.labels is None
        else sorted(set(range(head["outputs"])) - set(examples.labels))
    )
    if empty:
        told = ", ".join(names[i] for i in empty[:_SHOWN]) + (
            ", ..." if len(empty) > _SHOWN else ""
        )
        warn(
            f"{len(empty)} of the model's {head['outputs']} classes have no training example: {told}; what the "
            "model says of them was not learned from these data"
        )


def listed(model: ModelLike | Sequence[ModelLike]) -> list[ModelLike]:
    """One model or several as a list."""
    if isinstance(model, Model | nn.Module | Call):
        return [model]
    models = list(model) if isinstance(model, list | tuple) else []
    if not models or not all(isinstance(one, Model | nn.Module | Call) for one in models):
        raise InputError(
            f"model={brief(model)} is none; give a model, or a list of several checkpoints"
        )
    return models


def preprocess_of(model: ModelLike) -> Preprocess | None:
    """How photos become the model's inputs, where it says so."""
    return model.preprocess if isinstance(model, Model) else None


def examples_of(data: TrainData, model: ModelLike) -> Examples:
    """Training data as a model takes them, with its classes for labels: of those that both have names for, by name.

    Raises:
        ModelError: a class of the data is none of the model's.
    """
    numbered = isinstance(data, LabeledImages) and all(
        as_number(name) is not None for name in data.classes
    )
    if isinstance(model, Model) and isinstance(data, LabeledImages) and (model.labels or numbered):
        try:
            data = in_classes_of(model, data)
        except ModelError as error:
            raise ModelError(
                f"{str(error).partition(';')[0]}; give the names of its columns: seewhy.wrap(module, labels=...)"
            ) from error
    return as_examples(data, preprocess_of(model))


def opened_data(given: Sequence[TrainData], model: ModelLike, head: Head, folder: object) -> Joined:
    """The data sets that an index was made of, checked; places for them where none were given."""
    if not given:
        return Joined([Absent(data["count"], folder) for data in head["data"]])
    if len(given) != len(head["data"]):
        raise InputError(
            f"the index in '{folder}' is of {len(head['data'])} data sets, {len(given)} were given; data= takes the "
            "first, and added= a list of those that were added"
        )
    parts = [examples_of(data, model) for data in given]
    for stored, part in zip(head["data"], parts, strict=True):
        fingerprint.check_data(stored, part.fingerprint(), folder)
    return Joined(parts)
