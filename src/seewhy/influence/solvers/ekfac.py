"""EK-FAC: the Fisher information in a Kronecker-factored eigenbasis, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import InputError, ModelError
from ..gradients.curvature import Convergence
from ..gradients.losses import check_cross_entropy_of
from ..gradients.per_example import cotangents, unusual
from ..gradients.projection import Projection
from ..gradients.taps import AffineLayer, Taps, Use, affine_layers, borrowed, few, pieces, run
from ..problem import Batches, Problem, Progress, Reduce, Rows, ScoreOrLoss, identity
from .fisher import Fisher, FisherDraws, uses_of
from .solver import Holds, Settings
from .whole_gradients import as_fitted, in_double


class EKFAC:
    """EK-FAC influence (Grosse et al., 2023, section 2.2, after George et al., NeurIPS 2018).

    The Fisher information of a layer is taken to have the eigenvectors of E[g g^T] (x) E[a a^T], a what the layer is
    given and g the gradient of what it gives; its eigenvalues are then the mean squares of gradients along them. For
    the softmax cross entropy the Fisher information with labels from the model is the Gauss-Newton Hessian. Layers do
    not interact. Linear layers and convolutions count; norms, embeddings and grouped convolutions are left out.

    Rows are gradients, with the inverse on the test side; of a layer that works at one place of an image, as linear
    layers mostly do, training rows hold two factors. With `dim` they are random projections of V^T g
    over the root of eigenvalue, l2 and damping, the same on both sides: that has the smallest error.

    Args:
        fisher: "sampled", labels drawn from the model, as in the paper; "sketched", random signs on a root of
            diag(p) - p p^T, with the same expectation and far less variance where the model is sure (an unlikely label
            is hardly ever drawn, and all curvature is there); "empirical", the training labels.
        damping: added to the eigenvalues beside the problem's l2; None is a tenth of the mean of each layer's.
        samples: drawn for each example, keyed by its content and the seed.
        dim: numbers kept of each example; None keeps all: as many as there are parameters, or, for a layer of one
            place, inputs and outputs.
        seed: of what is drawn and the projection.

    Raises:
        ModelError: there is no linear layer or convolution to work on, or one is used in no usual way.
        InputError: parameters are named that belong to neither, an option is out of range, or the loss does not curve
            as the softmax cross entropy (any may with fisher="empirical").
    """

    name = "ekfac"
    passes = 2
    streams = False
    calibrated = True
    holds: Holds = "few"

    def __init__(
        self,
        *,
        fisher: Fisher = "sketched",
        damping: float | None = None,
        samples: int = 1,
        dim: int | None = None,
        seed: int = 0,
    ) -> None:
        if damping is not None and damping < 0:
            raise InputError(
                f"damping={damping} cannot be used; give 0 or more, or None for a tenth of the mean eigenvalue"
            )
        self._fisher = FisherDraws(fisher, samples, seed)
        self.settings: Settings = {
            "fisher": fisher,
            "damping": damping,
            "samples": samples,
            "dim": dim,
            "seed": seed,
        }
        self.whitens = dim is not None
        self._damping = damping
        self._project = Projection(dim, seed=seed) if dim is not None else None
        self._bases: dict[
            str, tuple[Tensor, Tensor]
        ] = {}  # layer -> (I, I) of a, (O, O) of g: eigenvectors in columns
        self._values: dict[str, Tensor] = {}  # layer -> (O, I), in the order of the rows
        self._factored: frozenset[str] = (
            frozenset()
        )  # layers of one place, whose gradients are stored as g and a

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        layers = _layers(problem)
        like = problem.flat()
        watch = Convergence(
            problem.restricted([name for layer in layers for name in layer.parameters])
        )
        sums = self._covariances(problem, layers, batches, watch, progress)
        self._bases = {
            layer.name: _eigenvectors(reduce, sums.pop(layer.name), like) for layer in layers
        }
        watch.conclude(reduce)
        totals, spread = self._squares_of_all(problem, layers, batches, progress)
        examples = problem.count
        self._values = {
            name: (reduce(total) / examples / self._fisher.count).to(like)
            for name, total in totals.items()
        }
        factored = set[str]()
        for layer, more in zip(layers, reduce(spread).tolist(), strict=True):
            factors_are_less = sum(layer.shape) < math.prod(layer.shape)
            if not more and factors_are_less:
                factored.add(layer.name)
        self._factored = frozenset(factored)

    def _squares_of_all(
        self,
        problem: Problem,
        layers: list[AffineLayer],
        batches: Batches,
        progress: Progress | None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The sums of squares in the eigenbasis, and a number above 0 for each layer that works at several places."""
        like = problem.flat()
        totals = {layer.name: in_double(like.new_zeros(layer.shape)) for layer in layers}
        spread = torch.zeros(len(layers), dtype=torch.float64)
        for images, labels in batches():
            for gradients in self._fisher.gradients(problem, layers, images, labels):
                for layer, _, signals, activations in pieces(gradients):
                    totals[layer.name] += self._squares(layer, signals, activations)
                    spread[layers.index(layer)] += signals.shape[1] - 1
            if progress:
                progress(len(images))
        return totals, spread

    def _covariances(
        self,
        problem: Problem,
        layers: list[AffineLayer],
        batches: Batches,
        watch: Convergence,
        progress: Progress | None,
    ) -> dict[str, list[Tensor]]:
        """The sums of a a^T and g g^T over places and examples, for each layer."""
        sums = {
            layer.name: [
                in_double(layer.module.weight.new_zeros(size, size))
                for size in reversed(layer.shape)
            ]
            for layer in layers
        }
        for number, (images, labels) in enumerate(batches()):
            if not number:
                self._check(problem, layers, images)
            watch.see(images, labels)
            for i, gradients in enumerate(self._fisher.gradients(problem, layers, images, labels)):
                for layer, given, signal in gradients:
                    g = layer.signals(signal).flatten(0, 1)
                    sums[layer.name][1] += g.T @ g
                    if i == 0:  # what is given does not depend on the labels
                        places = len(g) // len(given)
                        for some in torch.split(given, few(places * layer.shape[1], given)):
                            a = layer.activations(some).flatten(0, 1)
                            sums[layer.name][0] += a.T @ a
            if progress:
                progress(len(images))
        return sums

    def _check(self, problem: Problem, layers: list[AffineLayer], images: Tensor) -> None:
        """Refuses another loss than the Fisher information is of, and layers that are not used as hooks see them."""
        if self._fisher.of_model:
            check_cross_entropy_of(problem, images, self.name)
        names = tuple(name for layer in layers for name in layer.parameters)
        odd = unusual(problem.restricted(names), problem.call, images)
        if odd:
            raise ModelError(
                f"{min(odd)!r} is used other than by calling its layer on a row for each image, which ekfac needs; "
                "leave it out with parameters=, or use trak"
            )

    def _turned_factors(
        self, layer: AffineLayer, signals: Tensor, activations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """g V_g (b, O) and a V_a (b, I), of a layer at its single place."""
        right, left = self._bases[layer.name]
        return signals[:, 0] @ left, activations[:, 0] @ right

    def _turned_gradients(self, layer: AffineLayer, signals: Tensor, activations: Tensor) -> Tensor:
        """The gradients in the eigenbasis, V_g^T (sum_l g a^T) V_a: (b, O, I)."""
        right, left = self._bases[layer.name]
        fewer = (
            signals.shape[1] < layer.shape[0]
        )  # places than outputs: then turning what is given is less work
        turned = (signals @ left).transpose(1, 2)
        return turned @ (activations @ right) if fewer else turned @ activations @ right

    def _squares(self, layer: AffineLayer, signals: Tensor, activations: Tensor) -> Tensor:
        """The sum over examples of the squares of gradients in the eigenbasis, (O, I)."""
        if signals.shape[1] == 1:
            g, a = self._turned_factors(layer, signals, activations)
            return g.square().T @ a.square()
        return self._turned_gradients(layer, signals, activations).square_().sum(0)

    def _gradients(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> list[Use]:
        """What the layers were given, with the gradients of what they gave by each image's quantity."""
        self._demand_fit()
        with borrowed(problem.call), Taps(_layers(problem)) as taps:
            outputs = run(problem.call, {}, images)
            return uses_of(taps, outputs, cotangents(problem, outputs, score), len(images))

    def _demand_fit(self) -> None:
        as_fitted(next(iter(self._values.values()), None), self.name)

    def _solved_gradients(
        self, problem: Problem, images: Tensor, score: ScoreOrLoss, *, power: float
    ) -> Tensor:
        """(values)^-power V^T g of all layers, (B, P); for the power 1 V times that."""
        uses = self._gradients(problem, images, score)
        curvatures = self._curvatures(problem, uses)
        rows, parts = _blank_rows(
            problem, len(images), {name: values.numel() for name, values in self._values.items()}
        )
        for layer, some, signals, activations in pieces(uses):
            part = parts[layer.name][some].view(-1, *layer.shape)
            if signals.shape[1] == 1:
                g, a = self._turned_factors(layer, signals, activations)
                torch.mul(g[:, :, None], a[:, None], out=part)
            else:
                part.copy_(self._turned_gradients(layer, signals, activations))
            part.div_(curvatures[layer.name] ** power)
            if power == 1:
                right, left = self._bases[layer.name]
                for one in torch.split(part, few(math.prod(layer.shape), part)):
                    one.copy_(left @ one @ right.T)
        return rows

    def _stored_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        """The gradients g of all layers, (B, S); of a factored layer the g and the a of its place."""
        uses = self._gradients(problem, images, labels)
        rows, parts = _blank_rows(
            problem, len(images), {name: self._size(name) for name in self._values}
        )
        for layer, some, signals, activations in pieces(uses):
            part = parts[layer.name][some]
            if layer.name not in self._factored:
                torch.bmm(signals.transpose(1, 2), activations, out=part.view(-1, *layer.shape))
            elif signals.shape[1] == 1:
                torch.cat(_balanced(signals[:, 0], activations[:, 0]), 1, out=part)
            else:
                raise InputError(
                    f"layer {layer.name!r} works at {signals.shape[1]} places of these images and at one of those that "
                    "ekfac was fitted on; give images of one size, or fit again"
                )
        return rows

    def _size(self, layer: str) -> int:
        """Of this layer's part of a stored row."""
        shape = self._values[layer].shape
        return sum(shape) if layer in self._factored else math.prod(shape)

    def _curvatures(self, problem: Problem, uses: list[Use]) -> dict[str, Tensor]:
        return {
            name: self._curvature(problem, name) for name in {layer.name for layer, _, _ in uses}
        }

    def _curvature(self, problem: Problem, layer: str) -> Tensor:
        """Eigenvalues with l2 and damping, (O, I)."""
        values = self._values[layer]
        damping = 0.1 * values.mean() if self._damping is None else self._damping
        curvature = values + problem.l2 + damping
        if not bool((curvature > 0).all()):
            raise InputError(
                f"the Fisher information of layer {layer!r} is singular; give damping= above 0, or None"
            )
        return curvature

    def state(self) -> dict[str, Tensor]:
        self._demand_fit()
        found: dict[str, Tensor] = {}
        for name, values in self._values.items():
            activations, signals = self._bases[name]
            found |= {
                f"{name}.activations": activations,
                f"{name}.signals": signals,
                f"{name}.values": values,
            }
            found[f"{name}.factored"] = torch.tensor([name in self._factored])
        return found

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        like = problem.flat()
        names = [layer.name for layer in _layers(problem)]
        self._bases = {
            n: (state[f"{n}.activations"].to(like), state[f"{n}.signals"].to(like)) for n in names
        }
        self._values = {n: state[f"{n}.values"].to(like) for n in names}
        self._factored = frozenset(n for n in names if bool(state[f"{n}.factored"]))

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        if self._project is None:
            return {"rows": self._stored_rows(problem, images, labels).cpu()}
        return {
            "rows": self._project(self._solved_gradients(problem, images, labels, power=0.5)).cpu()
        }

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        if self._project is None:
            rows = self._solved_gradients(problem, images, score, power=1.0)
        else:
            rows = self._project(self._solved_gradients(problem, images, score, power=0.5))
        return {"rows": rows.div_(problem.count).cpu()}

    def dot(self, test: Rows, train: Rows) -> Tensor:
        self._demand_fit()
        tests = test["rows"]
        rows = train["rows"].to(test["rows"].dtype)
        if self._project is not None:
            return tests @ rows.T
        found = tests.new_zeros(len(tests), len(rows))
        each = torch.split(tests, [values.numel() for values in self._values.values()], 1)
        stored = torch.split(rows, [self._size(name) for name in self._values], 1)
        for (name, values), t, r in zip(self._values.items(), each, stored, strict=True):
            if name in self._factored:
                found += _bilinear(
                    t.view(-1, *values.shape), *torch.split(r, list(values.shape), 1)
                )
            else:
                found.addmm_(t, r.T)
        return found

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        if self._project is not None:
            rows = self._project(self._solved_gradients(problem, images, labels, power=0.5))
            return rows.square().sum(1).cpu() / problem.count
        uses = self._gradients(problem, images, labels)
        curvatures = self._curvatures(problem, uses)
        own = problem.flat().new_zeros(len(images))
        for layer, some, signals, activations in pieces(uses):
            curvature = curvatures[layer.name]
            if signals.shape[1] == 1:
                g, a = self._turned_factors(layer, signals, activations)
                own[some] += (g.square() @ curvature.reciprocal() * a.square()).sum(1)
            else:
                own[some] += (
                    self._turned_gradients(layer, signals, activations).square_() / curvature
                ).sum((1, 2))
        return own.cpu() / problem.count


def _blank_rows(
    problem: Problem, count: int, sizes: Mapping[str, int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows of zeros, and each layer's columns of them."""
    rows = problem.flat().new_zeros(count, sum(sizes.values()))
    return rows, dict(zip(sizes, torch.split(rows, list(sizes.values()), 1), strict=True))


def _bilinear(matrices: Tensor, g: Tensor, a: Tensor) -> Tensor:
    """g^T M a of matrices (T, O, I) and factors (B, O), (B, I): (T, B), a few matrices at a time."""
    some = torch.split(matrices, few(g.numel(), g))
    return torch.cat(
        [(torch.bmm(m, a.T.expand(len(m), -1, -1)) * g.T).sum(1) for m in some]
    )  # @ would copy m


def _balanced(g: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The same outer products with factors of equal norms, which a narrow type stores best."""
    sizes = g.norm(dim=1, keepdim=True), a.norm(dim=1, keepdim=True)
    scale = torch.where((sizes[0] > 0) & (sizes[1] > 0), (sizes[1] / sizes[0]).sqrt(), 1)
    return g * scale, a / scale


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


def _eigenvectors(reduce: Reduce, sums: list[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    a, g = (torch.linalg.eigh(reduce(total)).eigenvectors.to(like) for total in sums)
    return a, g
