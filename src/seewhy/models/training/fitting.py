"""One training run: steps of AdamW on Lightning Fabric, each a function of the seed and its number alone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.disk import Json
from ...errors import InputError, MissingExtraError, TrainingError
from ..networks.heads import LocalizationNet
from .feeding import Feed

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from torchmetrics import Metric

WARM_UP = 0.1  # of all steps


def start_fabric(device: str, devices: int, precision: str) -> Fabric:
    """Lightning Fabric on the devices, its processes started.

    Raises:
        MissingExtraError: lightning is not installed.
        InputError: there are no such devices, or not in this precision.
    """
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.utilities.exceptions import MisconfigurationException
    except ImportError as error:
        raise MissingExtraError("training", "train") from error
    kind, _, index = device.partition(":")
    try:
        fabric = Fabric(
            accelerator=kind,
            devices=[int(index)] if index else devices,
            strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
            precision=precision,
        )
        fabric.launch()
    except (RuntimeError, ValueError, TypeError, MisconfigurationException) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"device={device!r}, devices={devices}, precision={precision!r}: {said}"
        ) from error
    return fabric


def loss_function(*, binary: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """What is made small, from scores (n, K) and labels (n, K) of 0 and 1; the mean over pictures.

    Binary: the sum over classes of log(1 + exp(-y_k f_k)) with y_k = +-1 (Oquab et al., 2015); else cross-entropy.
    """
    if binary:
        return lambda scores, labels: F.softplus(scores * (1 - 2 * labels)).sum(1).mean()
    return lambda scores, labels: F.cross_entropy(scores, labels.argmax(1))


class Fitting:
    """A network in training, and all that the next step depends on.

    Args:
        net: changed in place.
        fabric: where it runs.
        feed: what it learns from.
        val: what it is scored on; None for nothing.
        epochs, lr, weight_decay, seed: `train`'s.
        binary: a loss of its own for each class.
        multi_label: mean average precision in place of top-1 accuracy.
    """

    def __init__(
        self,
        net: LocalizationNet,
        fabric: Fabric,
        feed: Feed,
        val: Feed | None,
        *,
        epochs: int,
        lr: float,
        weight_decay: float,
        seed: int,
        binary: bool,
        multi_label: bool,
    ) -> None:
        self.net = net
        self.fabric = fabric
        self.feed = feed
        self.val = val
        self.lr, self.seed, self.multi_label = lr, seed, multi_label
        self.loss = loss_function(binary=binary)
        self.steps_an_epoch = len(feed.order(0))
        self.steps = epochs * self.steps_an_epoch
        net.to(memory_format=torch.channels_last)
        if fabric.world_size > 1 and fabric.device.type == "cuda":  # there is none for processors
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        groups = list(_parameter_groups(net, weight_decay))
        self.running, self.optimizer = fabric.setup(net, torch.optim.AdamW(groups, lr=lr))

    def fit(self, epoch: int, on_step: Callable[[int], None]) -> float:
        """Learns from every picture once; returns the mean loss over this device's pictures.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        self.running.train()
        total, seen = 0.0, 0
        for i, (x, labels) in enumerate(self.feed.batches(epoch, self.fabric.device)):
            step = epoch * self.steps_an_epoch + i
            own = step * self.fabric.world_size + self.fabric.global_rank
            torch.manual_seed((self.seed << 32) + own)  # what dropout draws
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * schedule((step + 1) / self.steps)
            self.optimizer.zero_grad()
            loss = self.loss(self.running(x).float(), labels)
            value = float(loss.detach())
            self._check(value, f"in step {i + 1} of epoch {epoch + 1}")
            self.fabric.backward(loss)
            self.optimizer.step()
            total, seen = total + value * len(x), seen + len(x)
            on_step(step + 1)
        return total / seen

    def score(self, epoch: int) -> dict[str, float]:
        """The loss and the score, in [0, 1], on the pictures held back; nothing where there are none."""
        if self.val is None:
            return {}
        from torchmetrics import MeanMetric

        mean = MeanMetric().to(self.fabric.device)
        metric = self._metric().to(self.fabric.device)
        self.running.eval()
        with torch.no_grad():
            for x, labels in self.val.batches(None, self.fabric.device):
                scores = self.running(x).float()
                loss = self.loss(scores, labels)
                self._check(float(loss), f"on the pictures held back, after epoch {epoch + 1}")
                mean.update(loss, len(x))
                metric.update(scores, labels.long() if self.multi_label else labels.argmax(1))
        found = metric.compute()
        if self.multi_label:  # a class that no picture held back shows has no precision
            found = found[self.val.labels.any(0).to(found.device)].mean()
        return {"val_loss": float(mean.compute()), "score": round(float(found), 6)}

    def _metric(self) -> Metric:
        from torchmetrics.classification import MulticlassAccuracy, MultilabelAveragePrecision

        if self.multi_label:
            return MultilabelAveragePrecision(self.net.num_classes, average="none")
        return MulticlassAccuracy(self.net.num_classes, average="micro")

    def _check(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} {where}; what was saved stays: give a smaller lr than {self.lr:g}"
            )

    def state(self) -> Json:
        """What goes on from here: weights and optimiser, on the CPU."""
        return {
            "net": _on_cpu(self.net.state_dict()),
            "optimizer": _on_cpu(self.optimizer.state_dict()),
        }

    def load(self, state: Json) -> None:
        """Takes a `state` up again."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])


def _parameter_groups(net: nn.Module, decay: float) -> Iterator[dict[str, object]]:
    """The weights that decay, and those that do not: biases and norms."""
    for matrices in (True, False):
        chosen = [p for p in net.parameters() if (p.ndim > 1) == matrices]
        yield {"params": chosen, "weight_decay": decay if matrices else 0.0}


def schedule(done: float) -> float:
    """The share of the full learning rate at a share of the steps: up in a line, then down in half a cosine."""
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))


def _on_cpu(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(one) for key, one in value.items()}
    return [_on_cpu(one) for one in value] if isinstance(value, list | tuple) else value


def to_bytes(state: Mapping[str, object]) -> bytes:
    """As `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


@contextmanager
def own_randomness() -> Iterator[None]:
    """Leaves the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
