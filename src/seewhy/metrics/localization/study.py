"""What is explained of the pictures of a data set, so that each class that they show, or there is, has its map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.dataset import LabeledImages
from ...data.truth import Truth
from ...engine.batches import answers
from ...engine.targets.classes import class_scores
from ...engine.targets.resolve import TargetLike
from ...errors import InputError
from ...maps.attribution import Attribution
from ...maps.box_rules import BoxRule
from ...maps.boxes import boxes
from ...methods.explain import explain
from ...methods.explanation import Explanation
from ...methods.remarks import naming
from ...methods.request import MethodsLike, Request
from ...models.call import call_of
from ...models.model import Model
from ..base import ImageMetric
from ..metric import ExplanationMetric
from .box_metrics import TopKLocalization
from .class_metrics import LookAlike
from .evaluation import Case
from .marked import Marked, read_marked
from .metric import LocalizationMetric
from .point_metrics import LocationAveragePrecision

OnBadPicture = Callable[[str, InputError], None]
Place = tuple[str, str | None]  # a method and its layer
Pair = tuple[int, int]  # a picture of the batch or the data, and a class of the data
ByPlace = list[tuple[Place, list[Attribution]]]


@dataclass(frozen=True, eq=False)
class MarkedBatch:
    """Pictures, and what was explained of them.

    Attributes:
        columns: which target explains the class of a pair; and, where all are explained, every pair.
        alike: which target explains the best other class of a pair's picture.
        guesses: for each picture the data's classes that the model answers, best first; -1 for others.
        guessed: the targets that explain the guesses.
        rule: how maps become boxes of guesses.
    """

    marked: Marked
    columns: Mapping[Pair, int]
    alike: Mapping[Pair, int]
    guesses: list[list[int]]
    guessed: slice
    rule: BoxRule

    def feed(
        self, metric: ImageMetric, maps: Sequence[Tensor], scores: Sequence[Sequence[float]]
    ) -> None:
        """Adds the maps of one method, (N, h, w) for each target, with the targets' scores."""
        if isinstance(metric, TopKLocalization):
            self._feed_guesses(metric, maps[self.guessed])
        elif isinstance(metric, LocationAveragePrecision):
            pairs = [pair for pair in self.columns if self._is_known(*pair)]
            said = [scores[self.columns[pair]][pair[0]] for pair in pairs]
            if pairs:
                picked, truths, labels = self._maps_of_pairs(maps, pairs)
                metric.update(picked, truths, labels=labels, scores=said)
        elif isinstance(metric, LocalizationMetric) and self.marked.pairs:
            columns = self.alike if isinstance(metric, LookAlike) else self.columns
            picked, truths, labels = self._maps_of_pairs(maps, self.marked.pairs, columns)
            metric.update(picked, truths, labels=labels)

    def feed_asking(
        self,
        metric: ExplanationMetric,
        maps: Sequence[Tensor],
        model: Model,
        classes: Sequence[int],
    ) -> None:
        """Adds the maps of one method to a metric that asks the model.

        Args:
            metric: knows the method, if it runs it again.
            maps: (N, h, w) for each target.
            model: what was explained.
            classes: its class for each of the data's.
        """
        pairs = self.marked.pairs
        if pairs:
            picked, _, labels = self._maps_of_pairs(maps, pairs)
            x = self.marked.x[[picture for picture, _ in pairs]].to(model.device)
            metric.update(picked, model, x, [classes[label] for label in labels])

    def _maps_of_pairs(
        self,
        maps: Sequence[Tensor],
        pairs: Sequence[Pair],
        columns: Mapping[Pair, int] | None = None,
    ) -> tuple[Tensor, list[Truth | None], list[int]]:
        """The map, the truth and the class of each pair; maps of its class unless other columns are given."""
        at = self.columns if columns is None else columns
        picked = torch.stack([maps[at[pair]][pair[0]] for pair in pairs])
        truths = [self.marked.truths[picture] for picture, _ in pairs]
        return picked, truths, [label for _, label in pairs]

    def _is_known(self, picture: int, label: int) -> bool:
        """Whether it is known where a class is in a picture, or that it is not there."""
        truth = self.marked.truths[picture]
        is_shown = label in self.marked.labels[picture]
        return not is_shown or truth is None or bool((truth.labels == label).any())

    def _feed_guesses(self, metric: TopKLocalization, maps: Sequence[Tensor]) -> None:
        size = (self.marked.x.shape[2], self.marked.x.shape[3])
        found = [boxes(each, rule=self.rule, size=size) for each in maps]  # of each guess
        nowhere = torch.zeros(1, 4, dtype=torch.long)
        placed = []
        for picture in range(len(self.marked)):
            of_guesses = [each[picture] for each in found]
            firsts = [one.boxes[:1] if len(one) else nowhere for one in of_guesses]
            placed.append(torch.cat(firsts))
        guesses = [classes[: len(found)] for classes in self.guesses]
        metric.update(guesses, placed, self.marked.truths)


@dataclass(frozen=True, eq=False)
class Study:
    """What is explained of a data set's pictures, and how.

    Attributes:
        request: whose targets are the true classes of each picture.
        data: the pictures.
        classes: the model's class for each of the data's.
        rule: how maps become boxes of guesses.
    """

    request: Request
    data: LabeledImages
    classes: tuple[int, ...]
    rule: BoxRule

    def explained(
        self,
        indices: range,
        *,
        every: bool,
        alike: bool,
        guesses: int,
        on_bad_image: OnBadPicture | None,
    ) -> tuple[MarkedBatch, ByPlace] | None:
        """A batch, and its maps: for each method and layer one attribution for each target.

        Args:
            indices: of the pictures in the data.
            every: explain each class that there is, not only those that a picture shows.
            alike: explain the best other class of each picture too.
            guesses: how many of the model's own answers are explained too.
            on_bad_image: as in `read_marked`.
        """
        model = self.request.model
        marked = read_marked(self.data, indices, model, on_bad_image)
        if marked is None:
            return None
        targets, columns = self._targets(marked, every=every)
        others = _places(marked, after=len(targets))
        targets += self._best_others(marked) if alike else []
        guesses = min(guesses, len(model.labels or self.classes))
        count = len(targets) + guesses
        with naming(marked.names):
            ex = self._explain(
                marked.x, self.request.named, [*targets, *([f"top{guesses}"] if guesses else [])]
            )
        mine = {index: label for label, index in enumerate(self.classes)}
        said_of_each = [[mine.get(said.index, -1) for said in each] for each in ex.predictions]
        guessed = slice(len(targets), count)
        batch = MarkedBatch(marked, columns, others, said_of_each, guessed, self.rule)
        groups = [list(ex.attributions[at : at + count]) for at in range(0, len(ex), count)]
        return batch, [((group[0].method, group[0].layer), group) for group in groups]

    def _explain(
        self,
        x: Tensor,
        methods: MethodsLike,
        targets: TargetLike | Sequence[TargetLike],
    ) -> Explanation:
        return explain(
            self.request.model,
            x.to(self.request.model.device),
            methods=methods,
            targets=targets,
            layers=self.request.layers,
            batch_size=len(x),
            options=self.request.options,
        )

    def _targets(self, marked: Marked, *, every: bool) -> tuple[list[TargetLike], dict[Pair, int]]:
        """What to explain so that each class that a picture shows has its map, or each class there is."""
        if every:
            known = range(len(self.classes))
            columns = {(i, label): label for i in range(len(marked)) for label in known}
            return list(self.classes), columns
        return list(self._shown(marked)), _places(marked)

    def _shown(self, marked: Marked) -> list[list[int]]:
        """For each place the model's class of every picture."""
        most = max(1, max(map(len, marked.labels)))
        return [
            [self._class_at(labels, place) for labels in marked.labels] for place in range(most)
        ]

    def _best_others(self, marked: Marked) -> list[TargetLike]:
        """For each place the class of every picture that the model gives the highest score beside the one there.

        Raises:
            InputError: the model has no other class.
        """
        call, x = call_of(self.request.model), marked.x.to(self.request.model.device)
        scores = class_scores(answers(call, x)).detach().float().cpu()
        if scores.shape[1] < 2:
            raise InputError(
                "look_alike explains the best other class, and the model has one alone; "
                "give another metric"
            )
        shown = torch.tensor(self._shown(marked))
        found = [scores.scatter(1, each[:, None], -torch.inf).argmax(1).tolist() for each in shown]
        return list(found)

    def _class_at(self, labels: Sequence[int], place: int) -> int:
        """The model's class at a place of a picture's; one with fewer repeats its first, one without has any."""
        if place < len(labels):
            return self.classes[labels[place]]
        return self.classes[labels[0] if labels else 0]

    def cases(self, place: Place, kind: str, pairs: Sequence[tuple[Pair, float]]) -> Iterator[Case]:
        """The maps of some pictures once more, to look at."""
        method = next(m for m in self.request.possible_methods if m.name == place[0])
        for (index, label), value in pairs:
            marked = read_marked(self.data, [index], self.request.model)
            assert marked is not None
            assert marked.truths[0] is not None
            ex = self._explain(marked.x, method, self.classes[label])
            shown = next(each for each in ex if each.layer == place[1])
            found = boxes(shown.heatmap(), rule=self.rule)[0]
            truth = marked.truths[0].of(label)
            name, called = marked.names[0], self.data.classes[label]
            yield Case(shown, kind, name, called, value, ex.photos[0], found, truth)


def _places(marked: Marked, *, after: int = 0) -> dict[Pair, int]:
    """Which of a picture's classes a pair is of, counted from `after` on."""
    return {
        (i, label): after + place
        for i, labels in enumerate(marked.labels)
        for place, label in enumerate(labels)
    }
