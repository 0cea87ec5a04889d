"""What is asked for by name, checked before anything slow is loaded: a typing error is told within a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..errors import InputError
from ..names import (
    AUTO,
    FIRST,
    INSTEAD,
    Spellings,
    check_classes,
    check_device,
    check_option,
    is_auto,
    known_name,
    read_seen,
    split_names,
    split_targets,
)
from . import sources
from .groups import Asked, How

_OVER = {
    "smooth:": "smooth_grad",
    "finer:": "finer_cam",
}  # of another method -> what has its options


def checked(
    asked: Asked,
    how: How,
    *,
    style: str | None = None,
    rule: str | None = None,
) -> list[str]:
    """The methods that --method asks for, once every name in a request is one.

    Raises:
        InputError: one is none, or an option would do nothing.
    """
    found = asked_methods(asked.method or [AUTO])
    check_options(asked.option or (), [FIRST, INSTEAD] if found == [AUTO] else found)
    read_seen(asked.crop, asked.resize)
    check_request(
        device=how.device,
        style=style,
        rule=rule,
        model=asked.model,
        labels=asked.labels,
        targets=asked.target or (),
    )
    return found


def asked_methods(texts: Sequence[str]) -> list[str]:
    """The methods of --method, each a name or several with commas, by their names in the catalog.

    Raises:
        InputError: there is none of that name.
    """
    found = [name for text in texts for name in split_names(text)]
    return found if is_auto(found) else [_method(name) for name in found]


def _method(name: str) -> str:
    over = _over(name)
    if over is not None:
        return over + _method(name.removeprefix(over))
    known = sources.methods()
    titles = {each: listed.title for each, listed in known.items()}
    return known_name(name, known, what="method", titles=titles, ways="'seewhy methods' lists them")


def _over(name: str) -> str | None:
    """What a name says before that of another method."""
    return next((over for over in _OVER if name.startswith(over)), None)


def check_options(texts: Sequence[str], methods: Sequence[str]) -> None:
    """Says of "rise.samples=2000" and the like that there is no such method or option, or that it would do nothing.

    Raises:
        InputError: likewise, or it is not METHOD.OPTION=VALUE.
    """
    for text in texts:
        place, equals, _ = text.partition("=")
        method, _, option = place.rpartition(".")
        if not (method and option and equals):
            raise InputError(
                f"option {text!r} is not METHOD.OPTION=VALUE, such as rise.samples=2000"
            )
        name = _method(method)
        if name not in methods:
            asked = ", ".join(methods)
            raise InputError(
                f"option {text!r} is of a method that is not asked for; add --method {name} to {asked}"
            )
        over = _over(name)
        options = sources.methods()[_OVER[over] if over else name].options
        check_option(name, option.strip(), options)


def asked_fuse(
    over: str | None, methods: Sequence[str], layers: Sequence[str] | None
) -> Literal["layer", "method"] | None:
    """What --fuse asks for, unless that would do nothing.

    Raises:
        InputError: likewise.
    """
    if over is None:
        return None
    if over == "method":
        if len(set(methods)) < 2:
            raise InputError(
                f"--fuse method would fuse {methods[0]} with nothing; give --method two or more"
            )
        return "method"
    if over != "layer":
        raise InputError(f"--fuse {over!r} cannot be fused over; use 'layer' or 'method'")
    named = [name for text in layers or () for name in split_names(text)]
    if len(set(named)) < 2 and named != ["all-stages"]:
        raise InputError(
            "--fuse layer would fuse one layer with nothing; give --layer two or more, or all-stages"
        )
    return "layer"


def check_metrics(texts: Sequence[str]) -> None:
    """Says of "deletion" or "deletion:step=1792" that there is no such metric or setting.

    Raises:
        InputError: likewise.
    """
    known = sources.metrics()
    titles = {each: listed.title for each, listed in known.items()}
    for text in texts:
        name, _, settings = text.partition(":")
        metric = known_name(name, known, what="metric", titles=titles)
        for setting in settings.split(","):
            key, equals, _ = setting.partition("=")
            if equals:
                check_option(metric, key.strip(), known[metric].options)


def check_solver(solver: str, texts: Sequence[str]) -> None:
    """Says that there is no such solver, or that it has no such setting.

    Raises:
        InputError: likewise.
    """
    known = sources.solvers()
    name = known_name(solver, known, what="solver")
    for text in texts:
        key, equals, _ = text.partition("=")
        if equals:
            check_option(f"solver {name!r}", key.strip(), known[name].options)


def check_request(
    *, device: str = "cpu", style: str | None = None, rule: str | None = None, model: str = "", labels: object = None,
    targets: Sequence[str] = (),
) -> None:  # fmt: skip
    """Says which of these names nothing: a device, a style, a rule for boxes, and a class of the embedded model.

    Raises:
        InputError: one of them does; of a class a `TargetError`.
    """
    check_device(device, sources.names("models.devices", "DEVICES"))
    if style is not None:
        known_name(style, sources.names("render.styles", "STYLES"), what="style")
    if rule is not None:
        known_name(rule, sources.names("maps.box_rules", "RULES"), what="rule")
    embedded = bool(targets) and labels is None and model == sources.embedded_model()
    own = sources.imagenet_labels() if embedded else None
    if own is not None:
        spelled, forms = Spellings(own), sources.names("engine.targets.resolve", "FORMS")
        for text in targets:
            for target in split_targets(text, spelled, forms):
                check_classes(target, spelled, forms)
