"""Generic localisation features (Zhou et al., CVPR 2016, section 4): a linear classifier on pooled features.

The classifier takes the place of the network's last layer, so that every method, `cam` first, explains it: classes that
the network never learned are localised by weights that were fitted in seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from ...data.dataset import LabeledImages
from ...engine.flow import find_flow
from ...engine.heads import linear_heads
from ...engine.targets.names import ClassNames
from ...errors import InputError, MissingExtraError, ModelError
from ..call import call_of
from ..model import Model

_COUNT = "num_classes"  # what timm's models say of themselves


def pooled_features(
    model: Model,
    data: LabeledImages,
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """What a network hands to its last linear layer, for every picture: (N, F) float32 on the CPU.

    Args:
        model: a classifier that ends in a linear layer, with its preprocessing.
        data: the pictures.
        batch_size: pictures in one pass.
        progress: called with the number of pictures done and of all.

    Raises:
        ModelError: the network has no such layer, or does not say how photos become its input.
    """
    head = model.module.get_submodule(_head(model))
    taken: list[Tensor] = []
    hook = head.register_forward_pre_hook(
        lambda _, args: taken.append(args[0].detach().float().cpu())
    )
    try:
        for start in range(0, len(data), batch_size):
            stop = min(start + batch_size, len(data))
            call_of(model).answer(_batch(model, data, range(start, stop)))
            if progress:
                progress(stop, len(data))
    finally:
        hook.remove()
    return torch.cat(taken)


def with_head(model: Model, weight: Tensor, bias: Tensor, labels: Sequence[str]) -> Model:
    """A copy of a network under another last layer: weight (K, F), bias (K,), and a name for each of the K classes.

    Raises:
        ModelError: the network ends in no linear layer, or in one of other features.
    """
    name = _head(model)
    module = copy.deepcopy(model.module)
    old = module.get_submodule(name)
    assert isinstance(old, nn.Linear)
    if weight.ndim != 2 or weight.shape[1] != old.in_features:
        raise ModelError(
            f"weight has shape {tuple(weight.shape)}; {model.name} needs (K, {old.in_features})"
        )
    new = nn.Linear(weight.shape[1], len(weight), device=old.weight.device, dtype=old.weight.dtype)
    new.load_state_dict({"weight": weight, "bias": bias})
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, new.eval())
    if hasattr(module, _COUNT):
        setattr(module, _COUNT, len(weight))
    return replace(
        model,
        module=module,
        labels=ClassNames.of(labels),
        name=f"{model.name} with another head",
        multi_label=False,
    )


def linear_svm(
    model: Model,
    data: LabeledImages,
    *,
    regularization: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Fits a linear support vector machine, one class against the rest, on a network's pooled features.

    Args:
        model: the network, as in `pooled_features`.
        data: the pictures, of one class or of several each.
        regularization: C of `sklearn.svm.LinearSVC`: smaller is smoother. Features are standardised for the fit.
        seed: of the solver.
        batch_size: pictures in one pass.
        progress: called with the number of pictures done and of all.

    Returns:
        The network under the new head; its scores are the machine's decision values.

    Raises:
        InputError: a class is in every picture, or there is none.
        ModelError: as `pooled_features`.
        MissingExtraError: without scikit-learn.
    """
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise MissingExtraError("a linear support vector machine", "train") from error
    shown, truth = _shown_classes(data)
    features = pooled_features(model, data, batch_size=batch_size, progress=progress).double()
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    standard = ((features - mean) / std).numpy()
    machines = [
        LinearSVC(C=regularization, random_state=seed).fit(standard, column)
        for column in truth.T.numpy()
    ]
    weight = torch.cat([torch.from_numpy(machine.coef_) for machine in machines]) / std  # (K, F)
    bias = torch.cat([torch.from_numpy(machine.intercept_) for machine in machines]) - weight @ mean
    return with_head(model, weight.float(), bias.float(), [data.classes[label] for label in shown])


def _shown_classes(data: LabeledImages) -> tuple[list[int], Tensor]:
    """The classes that some picture shows, and which pictures show each: (N, K).

    Raises:
        InputError: a class is in every picture, or there are fewer than two.
    """
    shown = sorted(set(chain.from_iterable(data.labels)))
    truth = torch.tensor([[label in labels for label in shown] for labels in data.labels])
    for label, column in zip(shown, truth.T, strict=True):
        if column.all():
            raise _nothing_without_it(data, f"{data.classes[label]!r} in every picture")
    if len(shown) < 2:
        raise _nothing_without_it(data, "no classes")
    return shown, truth


def _nothing_without_it(data: LabeledImages, said: str) -> InputError:
    return InputError(
        f"data {data.title!r} shows {said}; a classifier needs pictures without it too"
    )


def _head(model: Model) -> str:
    """The name of the linear layer that gives the model's answer; where none gives it as it is, the last that ran."""
    shape = _input_shape(model)
    x = torch.linspace(-1, 1, shape[0] * shape[1] * shape[2], device=model.device).reshape(
        1, *shape
    )
    call = call_of(model)
    own, _ = linear_heads(call, x)
    ran = own or [r.maker for r in find_flow(call, x).records if r.projects]
    if not ran or not isinstance(call.module.get_submodule(ran[-1]), nn.Linear):
        raise ModelError(
            f"{model.name} does not end in a linear layer; give a network that pools into one"
        )
    return ran[-1]


def _input_shape(model: Model) -> tuple[int, int, int]:
    if model.preprocess is None:
        raise ModelError(
            f"{model.name} does not say how photos become its input; wrap it: seewhy.wrap(module, preprocess=...)"
        )
    return len(model.preprocess.mean), *model.preprocess.size


def _batch(model: Model, data: LabeledImages, indices: range) -> Tensor:
    assert model.preprocess is not None
    return model.preprocess.batch([data[i].photo for i in indices])[0]
