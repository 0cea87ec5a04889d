"""What a method is, as data: the formula of a paper over what one trace gives, or how it runs the model by itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ..engine.call import Call
from ..engine.flow import Flow
from ..engine.targets.classes import ScoreFunction
from ..maps.attribution import Estimate, Family
from .starts import Seed

Need = Literal[
    "activation",
    "gradient",
    "input",
    "input_gradient",
    "guided",
    "deconvnet",
    "relevance",
    "input_relevance",
]
Combine = Callable[..., Tensor]
Run = Callable[..., Sequence[Estimate]]
Choose = Callable[[Flow, Sequence[str]], Sequence[Sequence[str]]]
Settings = Mapping[str, Any]  # by name, each of the type that its function takes
Options = Mapping[str, Settings]  # for a method's name its options

HOW_IT_RUNS = ("running", "state")  # options that change how a map is computed, not which


def one_by_one(of_one: Callable[..., Tensor]) -> Run:
    """Has a function of one score, (call, x, score, *, layer, **options) -> a map, answer for several."""

    @functools.wraps(of_one)
    def run(
        call: Call, x: Tensor, scores: Sequence[ScoreFunction], **options: Any
    ) -> list[Estimate]:
        return [Estimate(of_one(call, x, score, **options)) for score in scores]

    return run


@dataclass(frozen=True, eq=False)
class Formula:
    """What a method computes, and what others need to know of it.

    Attributes:
        name, title, paper: the key in `METHODS`, the name for people, where it comes from.
        family: what kind of evidence its maps are, and so what they cannot say (`seewhy.maps.Family`).
        combine: the paper's formula over what it `needs`, in that order -> (N, h, w), or (N, C, H, W) with `reduce`.
        needs: "activation", "gradient" and "relevance" at the layer (N, C, h, w); "input", "input_gradient", "guided",
            "deconvnet" and "input_relevance" at the input (N, C, H, W). What several methods need is computed once.
        run: for methods that run the model by themselves, instead: (call, x, scores, layer, **options) -> an
            `Estimate` for each of the scores; `one_by_one` makes one of a function of one score.
        at: where the map lies: over a "layer", over the "input", or over the layer that the "head" pools.
        reduce: takes the colour channels together, (N, C, H, W) -> (N, H, W).
        signed: negative values speak against the target.
        choose: where nobody named a layer, the groups of layers to read instead of those that would be read, (flow,
            layers) -> groups.
        fuse: takes the maps of a group of layers to one.
        seeds: where relevance starts, one for each time it is needed; () has the option "seed".
        style: how its pictures are drawn where that is not to be told from the map (`seewhy.render.STYLES`).
        options: keyword arguments of `run`, or how relevance is carried, with their defaults.
    """

    name: str
    title: str
    paper: str
    family: Family
    combine: Combine | None = None
    needs: tuple[Need, ...] = ()
    run: Run | None = None
    at: Literal["layer", "input", "head"] = "layer"
    reduce: Callable[[Tensor], Tensor] | None = None
    signed: bool = False
    choose: Choose | None = None
    fuse: Callable[[Sequence[Tensor]], Tensor] | None = None
    seeds: tuple[Seed, ...] = ()
    style: str | None = None
    options: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", _documentation(self))

    @property
    def told_options(self) -> Mapping[str, object]:
        """The options that change which map it is: those that people are told of."""
        return {name: value for name, value in self.options.items() if name not in HOW_IT_RUNS}

    def __repr__(self) -> str:
        return f"<method {self.name}: {self.title}, {self.paper}>"


def _documentation(formula: Formula) -> str:
    """What the function of a method says, and after its first paragraph what all of its kind share."""
    function = formula.combine or formula.run
    written = getattr(
        function, "func", function
    ).__doc__  # of one with arguments given beforehand too
    summary, _, more = inspect.cleandoc(written or "").partition("\n\n")
    shared = " ".join([_shapes(formula), _range(formula), *_refusals(formula)])
    return "\n\n".join(filter(None, [summary, shared, more]))


def _shapes(formula: Formula) -> str:
    """What is read, and the shape of the map."""
    if formula.at == "input":
        read = "Over the input (N, C, H, W)"
    elif formula.at == "head":
        read = "Reads the layer (N, C, h, w) that the head pools"
    else:
        default = "chosen by itself" if formula.choose else "the last that is a picture"
        read = f"Reads a layer (N, C, h, w), {default} unless it is named"
    if formula.reduce:
        return f"{read}; gives (N, H, W), with channels=True (N, C, H, W)."
    return f"{read}; gives {'(N, H, W)' if formula.at == 'input' else '(N, h, w)'}."


def _range(formula: Formula) -> str:
    return "The map is signed." if formula.signed else "The map is >= 0."


def _refusals(formula: Formula) -> Iterator[str]:
    """The errors that are not of one method alone."""
    if formula.at == "layer":
        yield "A layer that did not run, or is no picture, is a LayerError."
    if {"relevance", "input_relevance"} & set(formula.needs):
        yield "An operation without a rule is a ModelError, unless strict=False."
