"""Black boxes: anything that takes a batch of pictures and gives scores, with no torch module in sight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal, Protocol, TypeGuard, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.preprocess import Preprocess
from ..errors import ArgumentTypeError, InputError, ModelError
from .answers import Gives

Array = NDArray[Any]
Takes = Literal["tensor", "array", "pictures", "rows"]

_OF_METHODS: dict[str, Gives] = {
    "predict_proba": "probabilities",
    "decision_function": "score",
    "predict": "score",
}
NO_GRADIENTS = (
    "this needs gradients or layers, and a black box ({}) has neither; use rise, lime or occlusion"
)


class BlackBox(nn.Module):
    """A function from a batch of pictures to scores, as a module: (N, C, H, W) -> (N, K) float32 on the CPU.

    Whole numbers and booleans stay what they are: they are names of classes rather than scores, which only callable
    targets read.

    It has no layers and no gradients; methods that need them are told so.

    Args:
        function: any callable, an ONNX Runtime session (its first input, and of its outputs those of floats, by name
            where they are several), or a scikit-learn estimator (on flattened pictures; its probabilities, else its
            decision function, else a regressor's predictions). It returns a tensor, an array or nested lists: (N, K)
            scores, or (N,), which is one score for each picture; or a detector's records, a mapping or a list of them,
            for targets that read those.
        takes: what the function is given: a float32 "tensor" (N, C, H, W) on the CPU, an "array", which is the same
            for numpy, "pictures", a uint8 array (N, H, W, 3) in RGB, for pipelines that read photos, or "rows", a
            float32 array (N, H * W * C) of pictures with channels last. "tensor" for a callable and "array" for the
            others unless given; estimators, which take flat rows, are to be told "array" or "rows" for pictures of
            several channels. What it is given is a copy that it may write into.
        preprocess: undone for "pictures"; without one those are the input times 255, which must then be in [0, 1].
        name: for errors; the function's own unless given.
        gives: what its numbers are, where it is not to be told from what it is (`seewhy.wrap`).

    Raises:
        ArgumentTypeError: `function` is none of these.
        InputError: `takes` is not known.
        ModelError: an estimator that only names classes, or a session without an output of floats.
    """

    def __init__(
        self,
        function: object,
        *,
        takes: Takes | None = None,
        preprocess: Preprocess | None = None,
        name: str | None = None,
        gives: Gives | None = None,
    ) -> None:
        super().__init__()
        if takes is not None and takes not in get_args(Takes):
            raise InputError(
                f"takes={takes!r} is not known; use 'tensor', 'array', 'pictures' or 'rows'"
            )
        self.name = name or getattr(function, "__name__", type(function).__name__)
        source = _as_source(function)
        self.function, self.flat = source.function, source.flat
        self.takes: Takes | None = takes or source.takes
        self.gives = gives or source.gives
        self.preprocess = preprocess
        self.eval()

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> object:
        """Calls the function and reads its scores, (N, K); a detector's records come as they are.

        Raises:
            ModelError: the function raised, gave no scores or not one row for each picture, or x asks for gradients.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise ModelError(NO_GRADIENTS.format(self.name))
        copy = x.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
        given = self._as_function_takes(copy)
        try:
            with torch.no_grad():
                said = self.function(given, *args, **kwargs)
        except Exception as error:  # whatever code this is, it fails with whatever it likes
            reason = str(error).partition("\n")[0]
            what = f"raised {type(error).__name__} on {self.takes} {tuple(given.shape)}"
            raise ModelError(f"the black box {self.name} {what}: {reason}") from error
        if isinstance(said, Mapping):
            return self._record_of_tensors(said)
        if _is_of_records(said):
            return [
                self._record_of_tensors(record)
                for record in self._one_for_each_picture(said, len(x))
            ]
        return self._table_of_scores(said, len(x))

    def _as_function_takes(self, x: Tensor) -> Tensor | NDArray[np.generic]:
        """What the function is called with; an estimator's are flat."""
        if self.takes is None and x.shape[1] > 1:
            raise ModelError(
                f"{self.name} takes flat rows, and pictures of {x.shape[1]} channels are flattened in two ways: give "
                "takes='rows' for (H, W, C), as picture libraries have them, or takes='array' for (C, H, W)"
            )
        if self.takes == "tensor":
            return x.flatten(1) if self.flat else x
        if self.takes == "rows":
            return x.movedim(1, -1).flatten(1).numpy()
        if self.takes == "pictures":
            pictures = self._pixels_of(x)
            if self.flat:
                return pictures.reshape(len(pictures), -1)
            return pictures
        return x.flatten(1).numpy() if self.flat else x.numpy()

    def _pixels_of(self, x: Tensor) -> NDArray[np.uint8]:
        if x.ndim != 4:
            raise ModelError(
                f"takes='pictures' is for pictures, x has shape {tuple(x.shape)}; give takes='array'"
            )
        if self.preprocess is not None:
            return self.preprocess.invert(x)
        low, high = float(x.min()), float(x.max())
        if x.shape[1] not in (1, 3) or low < -1e-4 or high > 1 + 1e-4:
            raise ModelError(
                f"takes='pictures' needs 1 or 3 channels in [0, 1], x has {x.shape[1]} from {low:.3g} to {high:.3g}; "
                "give preprocess=, which is then undone"
            )
        pixels = (x * 255).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def _one_for_each_picture(
        self, records: Sequence[Mapping[str, object]], n: int
    ) -> Sequence[Mapping[str, object]]:
        if len(records) != n:
            raise ModelError(
                f"the black box {self.name} gave {len(records)} records for {n} pictures; give one for each"
            )
        return records

    def _record_of_tensors(self, record: Mapping[str, object]) -> dict[str, object]:
        """A detector's record with its numbers as tensors on the CPU, of whatever kind they were; the rest as it is."""
        return {name: self._read_part(name, value) for name, value in record.items()}

    def _read_part(self, name: str, value: object) -> object:
        if isinstance(value, Tensor):
            return value.detach().cpu()
        if not isinstance(value, np.ndarray | list | tuple):
            return value
        try:
            numbers = np.asarray(value)
        except (
            RuntimeError,
            TypeError,
            ValueError,
        ):  # rows of different lengths, or tensors on another device
            numbers = np.asarray(None)
        if numbers.dtype.kind not in "biuf":
            raise ModelError(
                f"the black box {self.name} gave {name!r} as a {type(value).__name__} of no numbers; give an array "
                "or a tensor: boxes (A, 4), labels (A,) as indices, scores (A,)"
            )
        return _tensor_of(name, numbers)

    def _table_of_scores(self, said: object, n: int) -> Tensor:
        if isinstance(said, list | tuple) and len(said) == 1 and getattr(said[0], "ndim", 0) == 2:
            said = said[0]  # a session's list of outputs
        table = said if isinstance(said, Tensor) else torch.as_tensor(self._array_of_numbers(said))
        scores = table.detach().cpu()
        if scores.ndim not in (1, 2) or len(scores) != n or scores.numel() == 0:
            raise ModelError(
                f"the black box {self.name} gave scores of shape {tuple(scores.shape)} for {n} pictures; give (N, K), "
                "or one score for each, (N,)"
            )
        names = not scores.is_floating_point() and self.gives is None
        if names:
            return scores.reshape(n, -1)
        return scores.reshape(n, -1).float()

    def _array_of_numbers(self, said: object) -> NDArray[np.float64] | NDArray[np.int64]:
        try:
            numbers = np.asarray(said)
        except (RuntimeError, TypeError, ValueError):  # rows of different lengths
            numbers = np.asarray(None)
        if numbers.dtype.kind not in "biuf":
            raise ModelError(
                f"the black box {self.name} gave a {type(said).__name__}; give scores (N, K)"
            )
        if numbers.dtype.kind == "f":
            return numbers.astype(np.float64)
        return numbers.astype(np.int64)


def _is_of_records(said: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    if not isinstance(said, list | tuple) or not said:
        return False
    return all(isinstance(record, Mapping) for record in said)


def _tensor_of(name: str, numbers: NDArray[np.generic]) -> Tensor:
    """What a record has under a name, in the type and shape that such things have: empty lists leave both open."""
    found = torch.from_numpy(np.ascontiguousarray(numbers))
    if name == "labels":
        return found.long()
    found = found.float() if name in ("boxes", "scores") or found.is_floating_point() else found
    if name == "boxes" and not found.numel():
        return found.reshape(-1, 4)
    return found


@dataclass(frozen=True)
class _Source:
    """What to call, what that is usually given, whether in flat rows, and what its numbers are."""

    function: Callable[..., object]
    takes: Takes | None
    flat: bool = False
    gives: Gives | None = None


def _as_source(source: object) -> _Source:
    own = _method_of_estimator(source)
    if own is not None:
        return _scores_of(own.__self__, own.__name__, own)
    is_class = isinstance(source, type)
    if callable(source) and not is_class:
        return _Source(source, "tensor")
    if isinstance(source, _Session):
        return _Source(_run_session(source), "array")
    asked = next((name for name in _OF_METHODS if hasattr(source, name)), None)
    if asked is not None and not is_class:
        return _scores_of(source, asked, getattr(source, asked))
    kind = (
        f"the class {source.__name__}" if isinstance(source, type) else f"a {type(source).__name__}"
    )
    raise ArgumentTypeError(
        f"model is {kind}; give a torch.nn.Module, what seewhy.load_model returns, or a callable from pictures "
        "(N, C, H, W) to scores (N, K)"
    )


def _scores_of(estimator: object, method: str, function: Callable[..., object]) -> _Source:
    """What an estimator's method gives."""
    _check_scores(estimator, method)
    return _Source(function, None, flat=True, gives=_OF_METHODS[method])


def _method_of_estimator(source: object) -> MethodType | None:
    """What is given, if that is a method of an estimator, such as `classifier.predict_proba`."""
    if not isinstance(source, MethodType) or not hasattr(source.__self__, "get_params"):
        return None
    return source if source.__name__ in _OF_METHODS else None


def _check_scores(estimator: object, method: str) -> None:
    """Refuses what only names classes or clusters."""
    if method == "predict" and (hasattr(estimator, "classes_") or not _is_regressor(estimator)):
        kind = type(estimator).__name__
        raise ModelError(
            f"model is a {kind} that has only predict(), names of classes and no score to explain; give one with "
            "predict_proba (soft voting, probability=True, a calibrated one), or a function from pictures to scores"
        )


def _is_regressor(estimator: object) -> bool:
    kind: object = getattr(estimator, "_estimator_type", None)
    tags = getattr(estimator, "__sklearn_tags__", None)
    if kind is None and tags is not None:
        kind = tags().estimator_type
    return kind == "regressor"


class _Port(Protocol):
    """An input or an output of a session."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@runtime_checkable
class _Session(Protocol):
    """What is asked of an ONNX Runtime session."""

    def get_inputs(self) -> Sequence[_Port]: ...

    def get_outputs(self) -> Sequence[_Port]: ...

    def run(self, outputs: Sequence[str], given: Mapping[str, Array]) -> Sequence[Array]: ...


def _run_session(session: _Session) -> Callable[[Array], object]:
    """Runs an ONNX Runtime session, in pieces where its graph fixes the number of pictures."""
    first, names = session.get_inputs()[0], _outputs_of(session)
    fixed = first.shape[0] if first.shape and isinstance(first.shape[0], int) else None

    def run(pictures: Array) -> object:
        step = fixed or len(pictures)
        parts: list[list[Array]] = []
        for start in range(0, len(pictures), step):
            part = pictures[start : start + step]
            # the last piece is filled up with its own pictures
            filled = np.resize(part, (step, *part.shape[1:]))
            parts.append([said[: len(part)] for said in session.run(names, {first.name: filled})])
        whole = [np.concatenate(each) for each in zip(*parts, strict=True)]
        if len(names) == 1:
            return whole[0]
        return dict(zip(names, map(torch.as_tensor, whole), strict=True))

    return run


def _outputs_of(session: _Session) -> list[str]:
    """The names of a session's outputs of floats: labels beside scores are none."""
    outputs = session.get_outputs()
    floats = [out.name for out in outputs if out.type in _FLOATS]
    if not floats:
        told = ", ".join(f"{out.name} ({out.type})" for out in outputs)
        raise ModelError(
            f"the session has no output of floats: {told}; export scores as a tensor (zipmap=False)"
        )
    return floats


_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
