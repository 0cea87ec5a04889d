"""How far influences can be trusted: against retraining, against planted label errors, and against one more step.

Put the baselines `loss`, `embedding` and `random` beside every figure: plain loss finds most label errors too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from ...maps.ranks import mean_ranks
from ..gradients.per_example import quantities, total_gradient
from ..gradients.taps import borrowed, run
from ..problem import Problem, ScoreOrLoss

Retrain = Callable[
    [Tensor], Tensor
]  # kept examples (n,) bool -> test quantities (T,) of the model trained on them


@dataclass(frozen=True)
class Score:
    """A figure with its 95 % interval.

    Attributes:
        value: the mean.
        low, high: the interval's ends.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def over_seeds(values: Sequence[float]) -> Score:
    """The mean of a figure over independent seeds, with Student's 95 % interval.

    Raises:
        InputError: fewer than two values.
    """
    if len(values) < 2:
        raise InputError(
            f"values={list(values)} are too few for an interval; give those of 2 seeds or more"
        )
    from scipy.stats import t

    every = torch.tensor(values, dtype=torch.float64)
    half = float(t.ppf(0.975, len(values) - 1)) * float(every.std()) / math.sqrt(len(values))
    mean = float(every.mean())
    return Score(mean, mean - half, mean + half)


def leave_one_out(retrain: Retrain, count: int, examples: Sequence[int]) -> Tensor:
    """What leaving each of the examples out does to the test quantities, by retraining: (T, len(examples)).

    The truth that `Problem` defines influence as an estimate of, if `retrain` keeps 1/n as it is. Retrain to
    convergence from the full model's weights; with deep networks the noise of training is larger than the effect.

    Args:
        retrain: from the examples kept to the test quantities (T,).
        count: n.
        examples: indices below n.

    Example:
        >>> from seewhy.influence import leave_one_out
        >>> values = torch.tensor([1.0, 2.0, 6.0])
        >>> leave_one_out(lambda kept: values[kept].sum()[None], 3, [0, 2])
        tensor([[-1., -6.]])
    """
    every = torch.ones(count, dtype=torch.bool)
    full = retrain(every)
    changes = []
    for i in examples:
        if not 0 <= i < count:
            raise InputError(
                f"example {i} is none of the {count} training examples; accepted: 0 to {count - 1}"
            )
        kept = every.clone()
        kept[i] = False
        changes.append(retrain(kept) - full)
    return torch.stack(changes, 1)


def random_subsets(count: int, subsets: int, *, share: float = 0.5, seed: int = 0) -> Tensor:
    """Examples to train on, (S, n) bool: each row a random share of n, for the linear datamodelling score."""
    size = round(share * count)
    if not 0 < size < count or subsets < 2:
        raise InputError(
            f"share={share} of {count} examples and subsets={subsets}; accepted: a true part, 2 subsets"
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(count, generator=generator) < size for _ in range(subsets)])


def linear_datamodeling_score(
    influences: Tensor, subsets: Tensor, quantities: Tensor, *, resamples: int = 500, seed: int = 0
) -> Score:
    """The LDS (Park et al., ICML 2023, section 2): Spearman's correlation over random subsets, mean over tests.

    For each test it compares what influences predict of a subset, the sum over the examples that are in it, with what a
    model trained on it says. The interval is a bootstrap over tests, and over subsets.

    Args:
        influences: (T, n), positive where leaving out raises the quantity.
        subsets: (S, n) bool, see `random_subsets`.
        quantities: (S, T) of the models trained on them: a loss, or minus a target. Means over several trainings of a
            subset take out the noise of training.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: shapes that do not go together.

    Example:
        >>> from seewhy.influence import linear_datamodeling_score
        >>> from seewhy.influence.answers.trust import random_subsets
        >>> truth = torch.randn(2, 10)
        >>> subsets = random_subsets(10, 20)
        >>> round(linear_datamodeling_score(truth, subsets, -subsets.float() @ truth.T).value, 2)
        1.0
    """
    (tests, count), drawn = influences.shape, len(subsets)
    if subsets.shape != (drawn, count) or quantities.shape != (drawn, tests):
        raise InputError(
            f"influences {tuple(influences.shape)}, subsets {tuple(subsets.shape)} and quantities "
            f"{tuple(quantities.shape)} do not go together; accepted: (T, n), (S, n), (S, T)"
        )
    predicted = -(
        subsets.double() @ influences.double().T
    )  # (S, T): what is in keeps the quantity low
    measured = quantities.double()
    generator = torch.Generator().manual_seed(seed)
    value = float(spearman(predicted, measured).mean())
    means = []
    for _ in range(resamples):
        some = torch.randint(drawn, (drawn,), generator=generator)
        those = torch.randint(tests, (tests,), generator=generator)
        means.append(spearman(predicted[some][:, those], measured[some][:, those]).mean())
    low, high = torch.quantile(
        torch.stack(means), torch.tensor([0.025, 0.975], dtype=torch.float64)
    ).tolist()
    return Score(value, low, high)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each column, twice (S, T) -> (T,); ties share a rank; 0 for a constant."""
    a, b = (mean_ranks(columns.double().T).T for columns in (first, second))
    a, b = a - a.mean(0), b - b.mean(0)
    norms = a.norm(dim=0) * b.norm(dim=0)
    return torch.where(norms > 0, (a * b).sum(0) / norms.clamp(min=1e-300), 0)


def mislabel_curve(suspicion: Tensor, wrong: Tensor) -> Tensor:
    """The share of the wrong labels found in the first 1, 2, ..., n examples checked, most suspicious first: (n,).

    Args:
        suspicion: (n,), such as self-influence, or the loss.
        wrong: (n,) bool.

    Raises:
        InputError: other shapes, or no wrong label.

    Example:
        >>> from seewhy.influence import mislabel_curve
        >>> mislabel_curve(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([False, True, True]))
        tensor([0.5000, 1.0000, 1.0000], dtype=torch.float64)
    """
    if suspicion.ndim != 1 or wrong.shape != suspicion.shape or not bool(wrong.any()):
        raise InputError(
            f"suspicion {tuple(suspicion.shape)} and wrong {tuple(wrong.shape)}, {int(wrong.sum())} of it true; "
            "accepted: (n,) and (n,), at least one wrong"
        )
    order = suspicion.argsort(descending=True, stable=True)
    return wrong[order].double().cumsum(0) / wrong.sum()


def found_after(curve: Tensor, share: float) -> float:
    """What a `mislabel_curve` has found after a share of the examples."""
    if not 0 < share <= 1:
        raise InputError(f"share={share} cannot be used; accepted: above 0, at most 1")
    return float(curve[max(1, math.ceil(share * len(curve) - 1e-9)) - 1])


def tail_patch(
    problem: Problem,
    train: tuple[Tensor, Tensor],
    images: Tensor,
    score: ScoreOrLoss,
    influences: Tensor,
    *,
    k: int = 1,
    learning_rate: float = 1e-3,
) -> Tensor:
    """How much one more step on the k most helpful training examples helps: (T,) (Chang et al., 2024, section 4).

    From the final weights a step of gradient descent is taken on each of the k examples by itself, theta -
    learning_rate grad loss; the mean drop of the test quantity, positive where it helps, is what it comes to. Compare
    it with that of random examples.

    Args:
        problem: what was trained.
        train: images and labels of all n training examples.
        images: (T, C, H, W), the tests.
        score: their labels, or a target.
        influences: (T, n).
        k: examples for each test.
        learning_rate: of the step.

    Example:
        >>> from seewhy.influence import Problem, tail_patch
        >>> problem = Problem(modules=(net,), count=len(images))
        >>> influences = (labels == 0).float()[None]  # of the first picture
        >>> tail_patch(problem, (images, labels), images[:1], labels[:1], influences) > 0
        tensor([True])
    """
    if influences.shape != (len(images), len(train[0])) or not 1 <= k <= len(train[0]):
        raise InputError(
            f"influences {tuple(influences.shape)} and k={k} for {len(images)} tests and {len(train[0])} training "
            "examples; accepted: (T, n), and 1 <= k <= n"
        )
    before = _values(problem, problem.weights(), images, score)
    top = influences.topk(k, dim=1).indices
    drops = torch.zeros(len(images), dtype=before.dtype)
    for i in sorted(set(top.flatten().tolist())):
        step = learning_rate * total_gradient(problem, train[0][i : i + 1], train[1][i : i + 1])
        after = _values(problem, _moved(problem, step), images, score)
        drops += torch.where((top == i).any(1), before - after, 0)
    return drops / k


def _moved(problem: Problem, step: Tensor) -> dict[str, Tensor]:
    """The weights less a step (P,)."""
    weights = problem.weights()
    parts = torch.split(step, [w.numel() for w in weights.values()])
    return {
        name: w - part.reshape(w.shape)
        for (name, w), part in zip(weights.items(), parts, strict=True)
    }


def _values(
    problem: Problem, weights: dict[str, Tensor], images: Tensor, score: ScoreOrLoss
) -> Tensor:
    """The quantities (T,) with these weights, on the CPU."""
    with borrowed(problem.call), torch.no_grad():
        return quantities(problem, run(problem.call, weights, images), score).cpu()
