"""A model in a folder: its weights, and a card that says how its module is made again and all that `wrap` was told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, FunctionType

from safetensors.torch import save
from torch import Tensor, nn

from ..data.disk import Json, json_bytes, write_whole
from ..data.paths import TRUST, leads_out
from ..data.preprocess import Preprocess
from ..engine.answers import OutputLike
from ..engine.black_box import BlackBox
from ..engine.layers import unwrap
from ..errors import InputError, ModelError
from .factory import (
    FactorySpec,
    imported,
    made_by,
    module_with,
    needed_arguments,
    read_factory,
    warn_of_code,
)
from .families import load_family
from .networks.cards import (
    CARD,
    SAVED,
    TRAINED,
    WEIGHTS,
    card_preprocess,
    make_card,
    read_card,
)
from .networks.heads import build
from .weights import load_state, read_weights

# how a module is made again, as JSON: by one of "spec", "architecture", "transformers" (with "config") and "factory"
Source = Json
_NO_SETTINGS = ("training", "name_or_path")


def save_module(
    module: nn.Module,
    folder: Path,
    *,
    source: Source | None,
    factory: str | None,
    preprocess: Preprocess | None,
    output: OutputLike | None,
    name: str,
    **entries: object,
) -> Path:
    """Writes the weights and the card of a module.

    Args:
        module: it is as it was afterwards.
        folder: made where it is not there.
        source: how it is made again, where that is known.
        factory: how it is made again, as its user says.
        preprocess: how photos become inputs, where that is known.
        output: which output is meant.
        name: of the model.
        **entries: what else the card says.

    Raises:
        ModelError: the module cannot be made again, or something of the model cannot be written down.
        InputError: the folder holds a training, or cannot be written.
    """
    module = unwrap(module)
    if (folder / CARD).exists() and read_card(folder)["format"] == TRAINED:
        raise InputError(f"'{folder}' holds what 'seewhy train' wrote; give another folder")
    if preprocess is not None and type(preprocess) is not Preprocess:
        raise _cannot(
            name,
            f"its preprocess is a {type(preprocess).__name__}, not a seewhy.Preprocess",
        )
    card = make_card(
        preprocess,
        form=SAVED,
        source=_source(module, source, factory),
        output=_output_entry(output, name),
        name=name,
        takes=module.takes if isinstance(module, BlackBox) else None,
        **entries,
    )
    kept = _tensors(module)
    _check_same(module, kept, card)
    _write(folder, kept, {**card, "tensors": len(kept)})
    return folder


def load_saved(folder: Path, card: Json, file: Path, *, trust_paths: bool = False) -> Json:
    """The fields of the `Model` that was saved, its weights in the precision that they had.

    Args:
        folder: where it is.
        card: what its card says.
        file: its weights.
        trust_paths: whether the card may name files outside its folder.

    Raises:
        ModelError: it cannot be made any more, or its weights are not those that were saved.
    """
    source: Source = card["source"]
    runs = [source.get("factory"), _output_function(card)]
    if not trust_paths:
        _refuse_files_elsewhere(folder, [*runs, source.get("spec")])
    weights = read_weights(file) if card["tensors"] else {}
    if len(weights) != card["tensors"]:
        raise ModelError(
            f"'{file}' has {len(weights)} tensors, its card says {card['tensors']}; save the model again"
        )
    try:
        for factory in filter(None, runs):
            warn_of_code(_factory(factory), folder)
        module = _rebuilt(card, weights)
        function = _output_function(card)
        output = imported(_factory(function)) if function else card["output"]
    except ModelError as error:
        hint = _where_it_was(source)
        raise ModelError(f"the model in '{folder}' cannot be made again: {error}{hint}") from error
    fields = {key: card[key] for key in ("name", "multi_label", "gives", "source")}
    labels = card["labels"] and tuple(card["labels"])
    return {
        **fields,
        "module": module,
        "output": output,
        "preprocess": _preprocess(card),
        "labels": labels,
    }


def _output_function(card: Json) -> str | None:
    """Where the function that reads the output is, as "module:name"; None where the output is none."""
    output = card["output"]
    return str(output["function"]) if isinstance(output, Mapping) else None


def _where_it_was(source: Source) -> str:
    """What to do where a factory is not found any more, for the error."""
    was = source.get("file")
    if not was:
        return ""
    return f"; when it was saved the factory was in '{was}': run from there, or set PYTHONPATH"


def _refuse_files_elsewhere(folder: Path, named: Sequence[object]) -> None:
    """Refuses a card that names a file of code, or a folder of a family's, outside its own."""
    for text in filter(None, named):
        place, _, rest = str(text).partition(":")
        file = place if place.endswith(".py") else rest.partition("@")[2] or rest
        if (place.endswith(".py") or os.path.exists(file)) and leads_out(file, folder):
            raise ModelError(
                f"the card in '{folder}' names '{file}', which is outside of it; {TRUST}"
            )


def factory_source(factory: FactorySpec) -> Source:
    """A factory, and the file that it is in."""
    file = getattr(module_with(factory), "__file__", None)
    found = str(Path(file).resolve()) if file else None
    return {
        "factory": f"{found}:{factory.path}" if factory.is_file else str(factory),
        "file": found,
    }


def module_in(made: object) -> object:
    """The module of a `Model` that a factory returned; else what it returned."""
    inner = getattr(made, "module", None)
    return inner if isinstance(inner, nn.Module) and not isinstance(made, nn.Module) else made


def _rebuilt(card: Json, weights: Mapping[str, Tensor]) -> nn.Module:
    """The module anew, with these weights, in evaluation mode."""
    source: Source = card["source"]
    if "spec" in source:
        module, _, _ = load_family(source["spec"], weights, pretrained=False)
    elif "architecture" in source:
        module = build(source["architecture"])
    elif "transformers" in source:
        module = _of_transformers(source)
    else:
        made = module_in(made_by(_factory(source["factory"])))
        about = {"takes": card["takes"], "name": card["name"], "gives": card["gives"]}
        module = (
            made
            if isinstance(made, nn.Module)
            else BlackBox(made, preprocess=_preprocess(card), **about)
        )
    floats = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(floats) == 1:
        module.to(floats.pop())
    load_state(module, weights)
    for name, tensor in module.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(weights[name].dtype)
    return module.eval()


def _of_transformers(source: Source) -> nn.Module:
    import transformers

    kind = getattr(transformers, source["transformers"])
    config = kind.config_class.from_dict(dict(source["config"]))
    if source.get("attention") is None:
        module: nn.Module = kind(config)
    else:  # older versions have another class for each implementation, and none in the configuration
        module = kind._from_config(config, attn_implementation=source["attention"])
    return module


def _preprocess(card: Json) -> Preprocess | None:
    return None if card["preprocess"] is None else card_preprocess(card)


def _factory(text: str) -> FactorySpec:
    read = read_factory(text)
    if read is None or read.weights is not None:
        raise InputError(
            f"factory={text!r} is none; give 'package.module:factory', or 'path/to/file.py:factory'"
        )
    return read


def _source(module: nn.Module, known: Source | None, factory: str | None) -> Source:
    """How a module is made again: as its user says, as it was loaded, or as its class says."""
    if factory is not None:
        return factory_source(_factory(factory))
    if known is not None:
        return known
    kind, config = type(module), getattr(module, "config", None)
    if kind.__module__.startswith("transformers.") and config is not None:
        kept = json.loads(config.to_json_string(use_diff=False))
        return {
            "transformers": kind.__name__,
            "config": kept,
            "attention": getattr(config, "_attn_implementation", None),
        }
    named = getattr(module, "pretrained_cfg", None)
    if isinstance(named, dict) and named.get("architecture"):
        return {"spec": f"timm:{named['architecture']}"}
    return _class_source(module)


def _class_source(module: nn.Module) -> Source:
    kind = type(module)
    if isinstance(module, BlackBox):
        raise _cannot(str(module.name), "a black box has no weights to write down")
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        where = "the script that runs, or of a function"
        raise _cannot(kind.__name__, f"its class is of {where}, and cannot be imported")
    if needed := needed_arguments(kind):
        raise _cannot(kind.__name__, f"its class takes {', '.join(needed)}")
    return factory_source(FactorySpec(kind.__module__, kind.__qualname__))


def _output_entry(output: OutputLike | None, name: str) -> object:
    """Which output is meant, as a card says it; a function by where it is."""
    if output is None or isinstance(output, str | int):
        return output
    place = getattr(output, "__module__", None)
    path = getattr(output, "__qualname__", "")
    written = f"{place}:{path}"
    if (
        place in (None, "__main__")
        or read_factory(written) is None
        or imported(_factory(written)) is not output
    ):
        raise ModelError(
            f"{name} cannot be saved: its output={path or output!r} is a function that cannot be imported; give the "
            "name or number of the part, or a function of a module"
        )
    return {"function": written}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The weights on the CPU, each in memory of its own."""
    kept: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        kind = type(module).__name__
        if not isinstance(value, Tensor) or value.is_meta:
            why = "is no tensor, or is not here (meta)"
            raise ModelError(f"{kind} cannot be saved: '{name}' of its state {why}")
        kept[name] = value.detach().to("cpu", copy=True).contiguous()
    return kept


def _check_same(module: nn.Module, kept: Mapping[str, Tensor], card: Json) -> None:
    """That what the card says makes the same parts, and that the weights fit them.

    Raises:
        ModelError: it does not.
    """
    source, kind = card["source"], type(module).__name__
    by = f"'{source.get('factory') or source.get('spec') or kind}'"
    try:
        again = _rebuilt(card, kept)
    except ModelError as error:
        raise _cannot(kind, f"{by} does not make it: {error}") from error
    for name, there, here in _differences(module, again):
        differ = f"'{name}' is {there}, here {here}"
        raise _cannot(kind, f"{by} makes another network: {differ}")


def _differences(module: nn.Module, again: nn.Module) -> Iterator[tuple[str, object, object]]:
    """The name of each part and setting that differs, with what it is made anew, and here."""
    ours = dict(module.named_modules())
    theirs = dict(again.named_modules())
    for name in ours | theirs:
        here, there = (each.get(name) for each in (ours, theirs))
        if _class_name(here) != _class_name(there):
            yield name or "the network", _class_name(there), _class_name(here)
        mine, its = _settings(here), _settings(there)
        for key in mine:
            if mine[key] != its.get(key, mine[key]):
                yield f"{name}.{key}".lstrip("."), its[key], mine[key]


def _class_name(part: nn.Module | None) -> str:
    return "nothing" if part is None else type(part).__qualname__


def _settings(part: nn.Module | None) -> dict[str, object]:
    """The numbers, words and functions among the attributes of a part."""
    given = vars(part).items() if part is not None else ()
    return {
        key: _comparable(value)
        for key, value in given
        if _is_setting(value) and key not in _NO_SETTINGS and key[:1] != "_"
    }


def _is_setting(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_setting, value))
    plain = bool | int | float | str | FunctionType | BuiltinFunctionType
    return value is None or isinstance(value, plain)


def _comparable(value: object) -> object:
    """A setting, as it can be compared with that of another process."""
    if isinstance(value, tuple | list):
        return tuple(map(_comparable, value))
    return getattr(value, "__qualname__", value)


def _write(folder: Path, kept: Mapping[str, Tensor], card: Json) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).unlink(missing_ok=True)  # weights that are cut short have no card
        if kept:
            write_whole(folder / WEIGHTS, save(dict(kept)))
        write_whole(folder / CARD, json_bytes(card))
    except OSError as error:
        raise InputError(
            f"'{folder}' cannot be written: {error.strerror}; give one with rights and room"
        ) from error


def _cannot(name: str, why: str) -> ModelError:
    return ModelError(
        f"{name} cannot be saved: {why}; give factory='package.module:factory', a function without arguments that "
        "returns it as it was built"
    )
