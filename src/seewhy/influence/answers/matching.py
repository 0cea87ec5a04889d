"""Where a test picture and a training picture match: which places of both carry the influence of one on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.flow import LayerLike, find_layer
from ...engine.places.places import find_places, picture_layout
from ...engine.targets.resolve import TargetLike
from ...engine.trace import Trace
from ...errors import InputError
from ...maps import values as maps
from ...maps.attribution import Attribution
from ..gradients.per_example import cotangents
from ..gradients.taps import first_given
from ..head.head import Head
from ..index.index import InfluenceIndex
from ..index.questions import Question, questions
from ..modes import with_gradients
from ..solvers.solver import OfHead


@dataclass(frozen=True, eq=False)
class Matches:
    """Maps of B pairs of one test picture and B training pictures.

    Attributes:
        test, train: (B, h, w) signed, in units of the score; a map adds up to what of the score goes through
            the features, where these are means over places.
        scores: (B,), the influence that the maps divide.
        exact: whether that is the index's own influence; else it is the gradient product of the head.

    Example:
        >>> from seewhy.influence import InfluenceIndex, match_regions
        >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
        >>> matches = match_regions(index, images[:1], [3])
        >>> matches.train.map.shape, matches.exact
        (torch.Size([1, 16, 16]), True)
    """

    test: Attribution
    train: Attribution
    scores: Tensor
    exact: bool

    def carrying(self) -> tuple[Attribution, Attribution]:
        """Test and train without the sign of the score: positive where a place carries it, be it help or harm."""
        sign = torch.where(self.scores < 0, -1.0, 1.0)[:, None, None]
        test, train = (
            dataclasses.replace(a, map=sign * a.map, status=maps.statuses(sign * a.map))
            for a in (self.test, self.train)
        )
        return test, train


@with_gradients
def match_regions(
    index: InfluenceIndex,
    image: object,
    ids: Sequence[int],
    *,
    label: int | None = None,
    target: TargetLike | None = None,
    layer: LayerLike = None,
) -> Matches:
    """Divides influences among the places of both pictures, by gradient times activation.

    With the head's features f, the residuals r (the gradient of loss or target by the outputs) and the curvature H of
    the head, the influence s = (r_test (x) f_test)^T H^-1 (r_train (x) f_train) / n is linear in each f. For feature
    maps A of either picture, the residuals held, the map is

        M(p) = sum_c A_c(p) ds/dA_c(p),

    and where f is the mean of A over places, sum_p M(p) is s without the bias's part. An index whose solver is not of
    the last layer is answered with H = I, the gradient product of the head (`exact` is then False).

    Args:
        index: fit with `data`, or opened with it.
        image: the test picture: (1, C, H, W), or a photo in a list.
        ids: positions of training examples.
        label: whose loss is asked about; the model's own answer unless given.
        target: in place of the loss.
        layer: where feature maps are read; the last that is a picture unless given.

    Raises:
        InputError: several test pictures, no ids, a head that has a bias alone, or a model that has changed since.
        ModelError: the model's head is not linear.
        LayerError: no such layer, or none that is a picture.

    Example:
        >>> from seewhy.influence import InfluenceIndex, match_regions
        >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
        >>> matches = match_regions(index, images[:1], [0, 3], label=0)
        >>> matches.test.map.shape, matches.scores.shape
        (torch.Size([2, 16, 16]), torch.Size([2]))
    """
    index.watch.check()
    question = _question(index, index.inputs(image), label, target)
    if not len(ids):
        raise InputError(
            "ids is empty; give positions of training examples, such as those of a query"
        )
    pictures, labels = zip(*(index.data[i] for i in ids), strict=True)
    pairs = _Pairs(index, question, torch.stack(pictures), torch.tensor(labels))
    name = find_layer(index.problem.call, question.images, layer)
    repeated = question.images.expand(len(ids), -1, -1, -1)
    test, train = (
        _attribution(x, _places(index, pairs.head, x, by, name), name, pairs)
        for x, by in ((repeated, pairs.by_test), (pairs.images, pairs.by_train))
    )
    return Matches(test, train, pairs.scores, pairs.exact)


class _Pairs:
    """A test picture with each of B training pictures: their scores, and how these grow with either's features.

    Args:
        index: its solver says what stands between the two.
        question: of one picture.
        images: (B, C, H, W), of the training pictures.
        labels: (B,), theirs.

    Raises:
        InputError: the head has a bias alone.
        ModelError: the head is not linear.
    """

    def __init__(
        self, index: InfluenceIndex, question: Question, images: Tensor, labels: Tensor
    ) -> None:
        problem, solver = index.problem, index.solver
        self.images, self.about = images, question.words[0]
        self.exact = isinstance(solver, OfHead)
        self.head = Head(problem if self.exact else problem.restricted(()), question.images)
        if not self.head.layer.weight:
            raise InputError(
                "parameters= names the head's bias alone, which no place of a picture reaches"
            )
        test, said = self.head(problem, question.images)
        train, outputs = self.head(problem, images)
        slope = cotangents(problem, said, question.score)  # (1, K)
        slopes = cotangents(problem, outputs, labels)  # (B, K)
        if isinstance(solver, OfHead):
            solved = solver.solutions(problem, question.images, question.score)[0]  # (K, F)
            each = solver.solutions(problem, images, labels)  # (B, K, F)
            self.by_train = slopes @ solved.to(slopes)
            self.by_test = torch.einsum("bkf,k->bf", each.to(slope), slope[0])
        else:
            alike = slopes @ slope.T / problem.count  # (B, 1)
            self.by_train, self.by_test = alike * test, alike * train
        self.scores = (self.by_train * train).sum(1).cpu().float()


def _question(
    index: InfluenceIndex, x: Tensor, label: int | None, target: TargetLike | None
) -> Question:
    if len(x) != 1:
        raise InputError(
            f"image holds {len(x)} pictures; give one: (1, C, H, W), or a list of one photo"
        )
    labels = None if label is None else [label]
    return next(questions(index.problem, x, labels, target, classes=index.classes, batch_size=1))


def _places(
    index: InfluenceIndex, head: Head, images: Tensor, slopes: Tensor, layer: str
) -> Tensor:
    """sum_c A_c ds/dA_c (B, h, w), from the gradients (B, F) of s by the head's features."""
    given: list[Tensor] = []

    def keep(module: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        given.append(first_given(args, kwargs))

    places = find_places(index.problem.call, images)
    handle = head.layer.module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with Trace(index.problem.call, images, layers=[layer]) as trace:
            features = slopes[:, :-1] if head.layer.bias else slopes
            activation = trace.activations[layer]
            layout = picture_layout(places, images, layer, activation)
            signal = trace.signal(lambda _: (given[-1] * features).flatten(1).sum(1))[layer]
    finally:
        handle.remove()
    return (layout.to_grid(activation).float() * layout.to_grid(signal).float()).sum(1).cpu()


def _attribution(images: Tensor, found: Tensor, layer: str, pairs: _Pairs) -> Attribution:
    n, about = len(found), pairs.about
    return Attribution(
        method="influence",
        title="Where they match",
        layer=layer,
        target=about,
        map=found,
        status=maps.statuses(found),
        labels=(about,) * n,
        scores=tuple(pairs.scores.tolist()),
        probabilities=(None,) * n,
        image_size=(images.shape[2], images.shape[3]),
        signed=True,
    )
