"""EK-FAC: the Fisher information in a Kronecker-factored eigenbasis, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ...errors import InputError, ModelError
from ..curvature import Convergence
from ..draws import normals, uniforms
from ..gradients import cotangents, unusual
from ..layers import AffineLayer, Taps, affine_layers, borrowed, run
from ..losses import check_cross_entropy_of
from ..problem import Batches, Problem, Progress, Reduce, Rows, ScoreOrLoss, identity
from ..projection import Projection
from .whole_gradients import as_fitted, in_double

Fisher = Literal["sketched", "sampled", "empirical"]
Use = tuple[AffineLayer, Tensor, Tensor]  # layer, what it was given, the gradient of what it gave


class EKFAC:
    """EK-FAC influence (Grosse et al., 2023, section 2.2, after George et al., NeurIPS 2018).

    The Fisher information of a layer is taken to have the eigenvectors of E[g g^T] (x) E[a a^T], a what the layer is
    given and g the gradient of what it gives; its eigenvalues are then the mean squares of gradients along them. For
    the softmax cross entropy the Fisher information with labels from the model is the Gauss-Newton Hessian. Layers do
    not interact. Linear layers and convolutions count; norms, embeddings and grouped convolutions are left out.

    Rows are gradients, with the inverse on the test side. With `dim` they are random projections of V^T g over the root
    of eigenvalue, l2 and damping, the same on both sides: that has the smallest error.

    Args:
        fisher: "sampled", labels drawn from the model, as in the paper; "sketched", random signs on a root of
            diag(p) - p p^T, with the same expectation and far less variance where the model is sure (an unlikely label
            is hardly ever drawn, and all curvature is there); "empirical", the training labels.
        damping: added to the eigenvalues beside the problem's l2; None is a tenth of the mean of each layer's.
        samples: drawn for each example, keyed by its content and the seed.
        dim: numbers kept of each example; None keeps all, as many as there are parameters.
        seed: of what is drawn and the projection.

    Raises:
        ModelError: there is no linear layer or convolution to work on, or one is used in no usual way.
        InputError: parameters are named that belong to neither, an option is out of range, or the loss does not curve
            as the softmax cross entropy (any may with fisher="empirical").
    """

    name = "ekfac"
    passes = 2
    streams = False

    def __init__(
        self,
        *,
        fisher: Fisher = "sketched",
        damping: float | None = None,
        samples: int = 1,
        dim: int | None = None,
        seed: int = 0,
    ) -> None:
        if fisher not in get_args(Fisher):
            raise InputError(f"fisher={fisher!r} is not known; use {', '.join(map(repr, get_args(Fisher)))}")
        if damping is not None and damping < 0:
            raise InputError(
                f"damping={damping} cannot be used; give 0 or more, or None for a tenth of the mean eigenvalue"
            )
        if samples < 1:
            raise InputError(f"samples={samples} cannot be used; accepted: 1 or more")
        self.settings: Mapping[str, Any] = {
            "fisher": fisher,
            "damping": damping,
            "samples": samples,
            "dim": dim,
            "seed": seed,
        }
        self._fisher, self._damping, self._samples, self._seed = fisher, damping, samples, seed
        self._project = Projection(dim, seed=seed) if dim is not None else None
        self._bases: dict[str, tuple[Tensor, Tensor]] = {}  # layer -> (I, I) of a, (O, O) of g: eigenvectors in columns
        self._values: dict[str, Tensor] = {}  # layer -> (O, I)

    def fit(
        self, problem: Problem, batches: Batches, *, reduce: Reduce = identity, progress: Progress | None = None
    ) -> None:
        layers = _layers(problem)
        watch = Convergence(problem.restricted([name for layer in layers for name in layer.parameters]))
        self._bases = {
            layer.name: _eigenvectors(reduce, sums)
            for layer, sums in self._covariances(problem, layers, batches, watch, progress)
        }
        watch.conclude(reduce)
        totals = {layer.name: in_double(layer.module.weight.new_zeros(layer.shape)) for layer in layers}
        for images, labels in batches():
            for gradients in self._fisher_gradients(problem, layers, images, labels):
                for layer, rotated in self._rotated(gradients):
                    totals[layer.name] += rotated.square_().sum(0)
            if progress:
                progress(len(images))
        dtype = problem.flat().dtype
        self._values = {name: (reduce(t) / problem.count / self._draws).to(dtype) for name, t in totals.items()}

    @property
    def _draws(self) -> int:
        return 1 if self._fisher == "empirical" else self._samples

    def _covariances(
        self,
        problem: Problem,
        layers: list[AffineLayer],
        batches: Batches,
        watch: Convergence,
        progress: Progress | None,
    ) -> list[tuple[AffineLayer, list[Tensor]]]:
        """The sums of a a^T and g g^T over places and examples, for each layer."""
        sums = {
            layer.name: [in_double(layer.module.weight.new_zeros(size, size)) for size in reversed(layer.shape)]
            for layer in layers
        }
        for number, (images, labels) in enumerate(batches()):
            if not number:
                self._check(problem, layers, images)
            watch.see(images, labels)
            for i, gradients in enumerate(self._fisher_gradients(problem, layers, images, labels)):
                for layer, given, signal in gradients:
                    if i == 0:  # what is given does not depend on the labels
                        a = layer.activations(given).flatten(0, 1)
                        sums[layer.name][0] += a.T @ a
                    g = layer.signals(signal).flatten(0, 1)
                    sums[layer.name][1] += g.T @ g
            if progress:
                progress(len(images))
        return [(layer, sums[layer.name]) for layer in layers]

    def _check(self, problem: Problem, layers: list[AffineLayer], images: Tensor) -> None:
        """Refuses another loss than the Fisher information is of, and layers that are not used as hooks see them."""
        if self._fisher != "empirical":
            check_cross_entropy_of(problem, images, self.name)
        names = tuple(name for layer in layers for name in layer.parameters)
        odd = unusual(problem.restricted(names), problem.module, images)
        if odd:
            raise ModelError(
                f"{min(odd)!r} is used other than by calling its layer on a row for each image, which ekfac needs; "
                "leave it out with parameters=, or use trak"
            )

    def _fisher_gradients(
        self, problem: Problem, layers: list[AffineLayer], images: Tensor, labels: Tensor
    ) -> list[list[Use]]:
        """For each draw of labels what the layers were given and the gradients of what they gave."""
        with borrowed(problem.module), Taps(layers) as taps:
            outputs = run(problem.module, {}, images)
            slopes = [cotangents(problem, outputs, labels)]  # also where others are drawn: it checks the labels
            if self._fisher != "empirical":
                draw = _drawn if self._fisher == "sampled" else _sketched
                seeds = [self._seed * 1_000_003 + i for i in range(self._samples)]
                slopes = [draw(outputs.detach().softmax(1), images, seed) for seed in seeds]
            return [_uses(taps, outputs, s, len(images), keep=i + 1 < len(slopes)) for i, s in enumerate(slopes)]

    def _rotated(self, uses: list[Use]) -> Iterator[tuple[AffineLayer, Tensor]]:
        """Each layer's gradients in its eigenbasis, V_g^T (sum_l g a^T) V_a: (B, O, I)."""
        for layer, signals, activations in _by_layer(uses):
            right, left = (basis.to(signals) for basis in self._bases[layer.name])
            few = activations.shape[1] < layer.shape[0]  # places than outputs: then turning what is given is less work
            turned = (signals @ left).transpose(1, 2)
            yield layer, turned @ (activations @ right) if few else turned @ activations @ right

    def _rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss, *, power: float) -> Tensor:
        """V (values)^-power V^T g, without the last V for the power 1/2: (B, P) or, projected, (B, dim)."""
        if not self._values:
            raise InputError("the solver 'ekfac' is not fitted; call fit(problem, batches), or load(problem, state)")
        layers = _layers(problem)
        with borrowed(problem.module), Taps(layers) as taps:
            outputs = run(problem.module, {}, images)
            uses = _uses(taps, outputs, cotangents(problem, outputs, score), len(images))
        starts = dict(zip((layer.name for layer in layers), _starts(layers), strict=True))
        rows = outputs.new_zeros(len(images), sum(layer.shape[0] * layer.shape[1] for layer in layers))
        for layer, part in self._rotated(uses) if power else _plain(uses):
            if power:
                part.div_(self._curvature(problem, layer.name) ** power)
            if power == 1:
                right, left = (basis.to(part) for basis in self._bases[layer.name])
                part = left @ part @ right.T
            start = starts[layer.name]
            rows[:, start : start + part[0].numel()] = part.flatten(1)
        return rows if self._project is None else self._project(rows)

    def _curvature(self, problem: Problem, layer: str) -> Tensor:
        """Eigenvalues with l2 and damping, (O, I)."""
        values = self._values[layer]
        damping = 0.1 * values.mean() if self._damping is None else self._damping
        curvature = values + problem.l2 + damping
        if not bool((curvature > 0).all()):
            raise InputError(f"the Fisher information of layer {layer!r} is singular; give damping= above 0, or None")
        return curvature

    def state(self) -> dict[str, Tensor]:
        as_fitted(next(iter(self._values.values()), None), self.name)
        found: dict[str, Tensor] = {}
        for name, values in self._values.items():
            activations, signals = self._bases[name]
            found |= {f"{name}.activations": activations, f"{name}.signals": signals, f"{name}.values": values}
        return found

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        on = {key: value.to(problem.device) for key, value in state.items()}
        names = [key.removesuffix(".values") for key in on if key.endswith(".values")]
        self._bases = {name: (on[f"{name}.activations"], on[f"{name}.signals"]) for name in names}
        self._values = {name: on[f"{name}.values"] for name in names}

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        return {"rows": self._rows(problem, images, labels, power=0.0 if self._project is None else 0.5).cpu()}

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        rows = self._rows(problem, images, score, power=1.0 if self._project is None else 0.5)
        return {"rows": rows.div_(problem.count).cpu()}

    def dot(self, test: Rows, train: Rows) -> Tensor:
        return test["rows"] @ train["rows"].to(test["rows"].dtype).T

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        return self._rows(problem, images, labels, power=0.5).square().sum(1).cpu() / problem.count


def _by_layer(uses: list[Use]) -> Iterator[tuple[AffineLayer, Tensor, Tensor]]:
    """For each layer the gradients of what it gave (B, L, O) and what it was given (B, L, I), over all its uses."""
    together: dict[str, list[Use]] = {}
    for use in uses:
        together.setdefault(use[0].name, []).append(use)
    for same in together.values():
        layer = same[0][0]
        signals = [layer.signals(signal) for _, _, signal in same]
        activations = [layer.activations(given) for _, given, _ in same]
        if len(same) == 1:
            yield layer, signals[0], activations[0]
        else:
            yield layer, torch.cat(signals, 1), torch.cat(activations, 1)


def _plain(uses: list[Use]) -> Iterator[tuple[AffineLayer, Tensor]]:
    """Each layer's gradients as they are, (B, O, I)."""
    for layer, signals, activations in _by_layer(uses):
        yield layer, signals.transpose(1, 2) @ activations


def _starts(layers: list[AffineLayer]) -> list[int]:
    """Where each layer's part of a row begins."""
    sizes = [layer.shape[0] * layer.shape[1] for layer in layers]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _layers(problem: Problem) -> list[AffineLayer]:
    layers = affine_layers(problem.module, problem.names)
    covered = {name for layer in layers for name in layer.parameters}
    others = [name for name in problem.parameters or () if name not in covered]
    if others:
        raise InputError(
            f"parameters: {others[0]!r} is of no linear layer or plain convolution, which ekfac is for; leave it out, "
            "or use conjugate_gradient or trak"
        )
    if not layers:
        raise ModelError(
            "the model has no nn.Linear or nn.Conv2d that ekfac could work on; use trak or conjugate_gradient"
        )
    return layers


def _drawn(p: Tensor, images: Tensor, seed: int) -> Tensor:
    """The gradient p - onehot of the cross entropy with labels drawn from probabilities (B, K)."""
    u = uniforms(images, seed).to(p)
    labels = (p.cumsum(1) < u[:, None]).sum(1).clamp(max=p.shape[1] - 1)
    return p - nn.functional.one_hot(labels, p.shape[1]).to(p.dtype)


def _sketched(p: Tensor, images: Tensor, seed: int) -> Tensor:
    """sqrt(p) s - p (sqrt(p) . s) with random signs s: its second moment is diag(p) - p p^T."""
    signed = p.sqrt() * normals(images, seed, p.shape[1]).sign().to(p)
    return signed - p * signed.sum(1, keepdim=True)


def _uses(taps: Taps, outputs: Tensor, slopes: Tensor, count: int, *, keep: bool = False) -> list[Use]:
    """What the tapped layers were given with the gradients of what they gave."""
    signals = taps.gradients(outputs, slopes, keep=keep)
    for layer, given, _ in taps.uses:
        if len(given) != count or given.ndim < 2:
            raise InputError(
                f"layer {layer.name!r} was given {tuple(given.shape)} for {count} images; ekfac needs a row for each "
                "image: leave it out with parameters="
            )
    return [(layer, given, signal) for (layer, given, _), signal in zip(taps.uses, signals, strict=True)]


def _eigenvectors(reduce: Reduce, sums: list[Tensor]) -> tuple[Tensor, Tensor]:
    a, g = (torch.linalg.eigh(reduce(total)).eigenvectors for total in sums)
    return a, g
