"""What is asked of a model: one object behind `explain`, `evaluate` and the commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from ..data.disk import Json
from ..data.opened import MAX_PIXELS
from ..engine.answers import OutputLike, main_output
from ..engine.call import Call
from ..engine.layers import resolve_layer
from ..engine.targets.resolve import TargetLike, as_targets
from ..errors import InputError, LayerError
from ..models.call import CallableModel, model_and_call
from ..models.model import Model
from ..names import AUTO, FIRST, INSTEAD, is_auto
from .catalog import find_method
from .formula import HOW_IT_RUNS, Options
from .method import Method
from .told import told_value

ModelLike = CallableModel | str
LayersLike = str | nn.Module | Sequence[str | nn.Module] | None
MethodsLike = str | Method | Iterable[str | Method]
TargetsLike = TargetLike | Iterable[TargetLike]

ALL_STAGES = "all-stages"
BATCH_SIZE = 8


@dataclass(frozen=True, eq=False)
class Request:
    """Which maps of which answers of a model are asked for, with every name found. It pickles where its model does.

    Attributes:
        model, call: of whom, and how it is called.
        methods, targets: found in the catalog; as `seewhy.targets` takes them.
        layers: dotted names; None for the last that is a picture, "all-stages" for one of each resolution.
        options: for a method's name in the catalog its options.
        batch_size: pictures in one pass. Changes speed and memory, not the answer.
        ledger: whether account is kept of where relevance goes.
        max_pixels: a photo of more is refused.
        instead: the method that stands in for the one of `methods` where that cannot explain the model, which is said;
            None where a method was named.
    """

    model: Model
    call: Call
    methods: tuple[Method, ...]
    targets: tuple[TargetLike, ...]
    layers: str | tuple[str, ...] | None = None
    options: Options = field(default_factory=dict)
    batch_size: int = BATCH_SIZE
    ledger: bool = False
    max_pixels: int = MAX_PIXELS
    instead: Method | None = None

    @classmethod
    def of(
        cls,
        model: ModelLike,
        *,
        methods: MethodsLike,
        targets: TargetsLike,
        layers: LayersLike = None,
        options: Options | None = None,
        batch_size: int = BATCH_SIZE,
        ledger: bool = False,
        max_pixels: int = MAX_PIXELS,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        inputs: Mapping[str, object] | None = None,
        output: OutputLike | None = None,
    ) -> Request:
        """What a user asks in the words of `seewhy.explain`.

        Raises:
            SeewhyError: what cannot be used, in one line.
        """
        found, call = model_and_call(model, args=args, kwargs=kwargs, inputs=inputs, output=output)
        chosen, instead = _methods_asked_for(methods, layers, ledger=ledger)
        wanted = tuple(as_targets(targets))
        if not chosen or not wanted:
            raise InputError("nothing to explain: give at least one method and one target")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} is too small; give 1 or more")
        given = {find_method(name).name: settings for name, settings in (options or {}).items()}
        read = layer_names(call, layers) if any(m.at == "layer" for m in chosen) else ()
        return cls(
            found, call, chosen, wanted, read, given, batch_size, ledger, max_pixels, instead
        )

    @property
    def named(self) -> MethodsLike:
        """The methods as they were asked for: "auto" where none was named."""
        return self.methods if self.instead is None else AUTO

    @property
    def possible_methods(self) -> tuple[Method, ...]:
        """Those whose maps may come out."""
        return self.methods if self.instead is None else (*self.methods, self.instead)

    @property
    def pictures_at_once(self) -> int:
        """How many go through in one pass: one where account is kept, which is of one picture."""
        return 1 if self.ledger else self.batch_size

    def each_method_once(self) -> Request:
        """The same without methods that are asked for twice."""
        return replace(
            self, methods=tuple({method.name: method for method in self.methods}.values())
        )

    def told(self) -> Json:
        """All that its answers depend on, in JSON's types: two requests that tell the same ask the same."""
        asked = {method.name for method in self.possible_methods}
        settings = {name: _told_options(each) for name, each in self.options.items()}
        return {
            "model": self.model.identity(),
            "call": _told_call(self.call),
            "methods": [AUTO] if self.instead else [method.name for method in self.methods],
            "targets": [told_value(target) for target in self.targets],
            "layers": list(self.layers) if isinstance(self.layers, tuple) else self.layers,
            "options": {name: each for name, each in settings.items() if each and name in asked},
        }

    def digest(self) -> str:
        """64 hexadecimal digits of what it tells."""
        text = json.dumps(self.told(), sort_keys=True)
        return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _methods_asked_for(
    methods: MethodsLike, layers: LayersLike, *, ledger: bool
) -> tuple[tuple[Method, ...], Method | None]:
    """The methods that are named, and what stands in where none is.

    The first choice was measured at layers of its own: who names a layer is shown what everybody shows of one.
    """
    listed = [methods] if isinstance(methods, str | Method) else list(methods)
    if not is_auto(listed):
        return tuple(map(find_method, listed)), None
    first, instead = find_method(FIRST), find_method(INSTEAD)
    if ledger:  # which Grad-CAM has none of
        return (first,), None
    is_named = layers is not None and not (isinstance(layers, str) and layers == ALL_STAGES)
    return ((instead,), None) if is_named else ((first,), instead)


def layer_names(call: Call, layers: LayersLike) -> str | tuple[str, ...] | None:
    """The dotted names of layers that a user names; None and "all-stages" as they are.

    Raises:
        LayerError: the model has no such layer, or none is named.
    """
    if layers is None or (isinstance(layers, str) and layers == ALL_STAGES):
        return layers
    given = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not given:
        raise LayerError(
            f"layers={layers!r} names no layer; give names, 'all-stages', or None for the last"
        )
    return tuple(dict.fromkeys(resolve_layer(call.module, layer) for layer in given))


def _told_call(call: Call) -> Json:
    """The further inputs of a call, and which output is meant."""
    further = {"args": list(call.args), "kwargs": dict(call.kwargs), "inputs": dict(call.inputs)}
    told = {name: told_value(given) for name, given in further.items() if given}
    return {**told, "output": _told_output(call.output)}


def _told_output(output: OutputLike) -> object:
    """None for the main one."""
    return None if output is main_output else told_value(output)


def _told_options(settings: Mapping[str, object]) -> Json:
    """Those that change which map it is."""
    return {name: told_value(value) for name, value in settings.items() if name not in HOW_IT_RUNS}
