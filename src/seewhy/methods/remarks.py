"""What is to know of each image's map, from what its method found; and the warnings of it, which name the photo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain

from ..maps.attribution import Attribution, Facts
from ..remarks import Remarks, warn

UNSURE_ABOVE = 0.5  # of a sampled map's signal: with more error it is mostly noise
_SHOWN = 3  # photos that one warning names
_names: ContextVar[tuple[str, ...] | None] = ContextVar("names", default=None)
_label: ContextVar[Callable[[int], str] | None] = ContextVar("label", default=None)


def remarks_of_facts(facts: Facts) -> tuple[str, ...]:
    """What the facts of one image say against its map: a failure, a poor fit, a large error."""
    said: list[str] = []
    if facts.get("partial"):
        said.append(f"the map is partial: {facts.get('failed') or 'the model failed'}")
    if facts.get("locally_linear") is False:
        said.append(
            f"a linear model has {100 * max(facts['r2_held_out'], 0):.0f} % of the score's variance: the model is not "
            "locally linear, and coefficients are averages over what superpixels do together; larger superpixels or "
            "another baseline may fit better, or more samples"
        )
    if facts.get("precise") is False:
        said.append(
            f"the precision that was asked for is not reached after {facts['samples']:,} samples; draw more"
        )
    if "relative_error" in facts and facts["samples"] > 1:
        said += _of_error(facts["relative_error"], facts["samples"])
    return tuple(said)


def _of_error(error: float | None, samples: int) -> Iterator[str]:
    """What a sampled map's error says against it; None is an infinite one."""
    if error is None or error > UNSURE_ABOVE:
        share = (
            "as large or larger than" if error is None or error >= 1 else f"{100 * error:.0f} % of"
        )
        yield f"its error is {share} its signal after {samples:,} samples; take more"


def remarks_of_each(names: Sequence[str], attribution: Attribution) -> Iterator[list[str]]:
    """For each photo what is said of its map, with the names of the photo and of its label."""
    for name, label, said in zip(names, attribution.labels, attribution.remarks, strict=False):
        yield [f"{name}, {label}: {one}" for one in said]


def named_remarks(names: Sequence[str], attribution: Attribution) -> Iterator[str]:
    """The same of all photos, one after the other."""
    return chain.from_iterable(remarks_of_each(names, attribution))


@contextmanager
def naming(names: Sequence[str], label: Callable[[int], str] | None = None) -> Iterator[None]:
    """Within it images, and classes, are called so, rather than by their places in a batch and an answer."""
    tokens = _names.set(tuple(names)), _label.set(label)
    try:
        yield
    finally:
        _names.reset(tokens[0])
        _label.reset(tokens[1])


def label_within(otherwise: Callable[[int], str]) -> Callable[[int], str]:
    """What calls classes, within `naming` or otherwise."""
    return _label.get() or otherwise


def tell(title: str, names: Sequence[str], labels: Sequence[str], remarks: Remarks) -> None:
    """Warns of the maps of a method for a target: of the first that something is said of, and how many others are so.

    Args:
        title: the method's.
        names: what each image is called.
        labels: what is explained of each.
        remarks: for each image.
    """
    called = _names.get() or tuple(names)
    told = [i for i, each in enumerate(remarks) if each]
    if not told:
        return
    first, *others = told
    also = ", ".join(called[i] for i in others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
    likewise = f" (something is said of {also} too)" if others else ""
    warn(f"{title} of {called[first]}, {labels[first]}: {'; '.join(remarks[first])}{likewise}")
