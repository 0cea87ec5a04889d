"""`seewhy influence fit`: the index of a training set, made once; killed, it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from ..errors import InputError
from ..safe_names import shown
from .arguments import DATA_OPTION, BatchOption, LabelsOption, ModelOption, SeedOption
from .asked import check_request, check_solver
from .groups import How
from .results import print_json
from .show import starting

if TYPE_CHECKING:
    from ..data.dataset import LabeledImages, OnError
    from ..data.disk import Json
    from ..influence import InfluenceIndex
    from ..influence.index.index import Dtype
    from ..models.model import Model

_SOLVERS = (
    "last_layer, hessian, conjugate_gradient, lissa, arnoldi, ekfac, gradient_dot, tracin, trak, representer; and to "
    "compare with: embedding, loss, random. docs/influence.md says which when."
)


@dataclass(frozen=True)
class Solving:
    """How influence is computed, and kept."""

    solver: Annotated[str, typer.Option("--solver", "-s", help=_SOLVERS)] = "last_layer"
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-O",
            help="A setting of the solver, NAME=VALUE, as damping=0.01.",
            show_default="the solver's",
        ),
    ] = None
    l2: Annotated[
        float,
        typer.Option(
            "--l2",
            min=0,
            help="That the model was trained with: mean loss + l2/2 |weights|^2. weight_decay of torch's SGD is this.",
        ),
    ] = 0.0
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            help="The name of a weight that counts, for one or more.",
            show_default="what the solver takes",
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float16, float32 or float64 on disk.", show_default="as the solver gives it"
        ),
    ] = None
    self_influence: Annotated[
        bool,
        typer.Option(
            "--self-influence", help="Compute at once what 'mislabeled' else computes first."
        ),
    ] = False
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures.")] = 0
    batch_size: BatchOption = 64


def fit(
    data: Annotated[str, DATA_OPTION],
    *,
    model: ModelOption = "efficientnet_lite0",
    solving: Solving,
    labels: LabelsOption = None,
    split: Annotated[str, typer.Option(help="Of the data: train, val or test.")] = "train",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what cannot be read, and count it.")
    ] = False,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the index goes.")] = Path(
        "seewhy-index"
    ),
    how: How,
) -> int:
    """Indexes a training set, once; killed, it goes on with the same command."""
    check_solver(solving.solver, solving.option or [])
    check_request(device=how.device)
    on_error: OnError = "skip" if skip_bad else "raise"
    with starting():
        from ..data.disk import writable_folder
        from . import parsing
        from .influence_data import limits_of, model_and_data
        from .influence_telling import first_of_all

    _known_dtype(solving.dtype)
    first, names = first_of_all(), parsing.label_names(labels)
    made_of: Json = {"model": model, "data": data, "split": split, "seed": seed}
    if names is not None:
        made_of["labels"] = names
    limits = limits_of(how)
    loaded, examples = model_and_data(made_of, limits, device=how.device, on_error=on_error)
    made_of["skipped"] = list(examples.skipped)
    writable_folder(out)
    index = _made_index(loaded, examples, solving, made_of, out)
    if how.as_json and first:
        print_json({"index": str(out), **made_of, **_what_was_asked(index, solving)})
    elif not how.as_json:
        _tell_how_to_ask(index, solving, made_of, out)
    return 0


def _known_dtype(dtype: str | None) -> Dtype | None:
    from ..influence.index.index import Dtype

    if dtype is None:
        return None
    for known in get_args(Dtype):
        if known == dtype:
            return cast(Dtype, known)
    raise InputError(f"dtype {dtype!r} is not known; accepted: float16, float32 or float64")


def _made_index(
    model: Model, examples: LabeledImages, solving: Solving, made_of: Json, out: Path
) -> InfluenceIndex:
    """The index, which goes on where an earlier run stopped."""
    from ..influence import InfluenceIndex, find_solver
    from .influence_data import what_is_indexed
    from .influence_telling import forecasting_self_influence, telling
    from .interrupts import interruptible
    from .show import console, progress, tell_skipped

    solver = find_solver(solving.solver, **parse_settings(solving.option or []))
    with (
        interruptible(lambda: what_is_indexed(out)),
        progress("Indexing", len(examples), told=True) as show,
    ):
        index = InfluenceIndex.fit(
            model,
            examples,
            solver=solver,
            l2=solving.l2,
            parameters=solving.parameter or None,
            out=out,
            batch_size=solving.batch_size,
            workers=solving.workers,
            dtype=_known_dtype(solving.dtype),
            about=made_of,
            announce=lambda cost: console.print(str(cost)),
            progress=telling(show),
        )
        if solving.self_influence:
            index.self_influence(progress=forecasting_self_influence(show))
    tell_skipped(examples.skipped.values())
    return index


def parse_settings(texts: Sequence[str]) -> dict[str, object]:
    """The settings that "damping=0.01" and the like give to a solver."""
    from . import parsing

    found: dict[str, object] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        if not (name and equals):
            raise InputError(f"option {text!r} is not NAME=VALUE, such as damping=0.01")
        found[name.strip()] = parsing.value(given)
    return found


def _what_was_asked(index: InfluenceIndex, solving: Solving) -> Json:
    return {
        "solver": solving.solver,
        "l2": solving.l2,
        "examples": len(index),
        "self_influence": solving.self_influence,
    }


def _tell_how_to_ask(index: InfluenceIndex, solving: Solving, made_of: Json, out: Path) -> None:
    """For people: where the index is, and how it is asked."""
    from .influence_data import trust_hint
    from .show import bold, console

    once = "" if solving.self_influence else "  # computes self-influence first, once"
    console.print(f"The index of {len(index):,} examples is in {bold(out)}. Ask it:")
    index_of = f"--index {shown(out)}{trust_hint(made_of, out)}"
    for line in (f"query PHOTO {index_of}", f"mislabeled {index_of}{once}"):
        console.print(f"seewhy influence {line}", soft_wrap=True, markup=False)
