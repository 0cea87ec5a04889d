"""One training in its folder: how it begins, what is on disk after each epoch, and how it goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from ...data.dataset import LabeledImages
from ...data.disk import Json, json_bytes, png_bytes
from ...data.preprocess import IMAGENET, Preprocess
from ...errors import InputError, ModelError, TrainingError
from ..load import load_model
from ..model import Model
from ..networks.cards import (
    CARD,
    CURVES,
    HISTORY,
    STATE,
    WEIGHTS,
    card_preprocess,
    keep,
    make_card,
    read_card,
)
from ..networks.heads import LocalizationNet, build
from .feeding import Feed, find_augmentation
from .fitting import Fitting, start_fabric, to_bytes
from .learning import learning_picture

if TYPE_CHECKING:
    from lightning.fabric import Fabric

OnStep = Callable[[int, int], None]  # the steps that are done, and all
OnEpoch = Callable[[Mapping[str, float]], None]  # a row of the history
_LOOKED_AT = 8  # pictures, to tell data sets of the same names and labels apart


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        model: with the weights of the best epoch.
        folder: where it is; `load_model(folder)` loads it again.
        history: for each epoch "epoch", "train_loss", and with pictures held back "val_loss" and "score".
        scores: of the best epoch: "metric" ("top-1" or "mean average precision"), "value" in [0, 1], "loss", "epoch",
            "pictures"; {} where none were held back.

    Example:
        >>> scenes = seewhy.data.Scenes(8, size=64)
        >>> tiny = {"backbone": "timm:test_resnet", "pretrained": False, "size": (64, 64)}
        >>> trained = seewhy.wsol.train(scenes, epochs=1, out="mine", **tiny)
        >>> trained.folder.name, list(trained.history[0])
        ('mine', ['epoch', 'train_loss'])
    """

    model: Model
    folder: Path
    history: tuple[Mapping[str, float], ...]
    scores: Json


@dataclass(frozen=True)
class Learning:
    """How long and in which steps a network learns: the arguments of `train` of the same names."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    augment: str
    patience: int | None
    precision: str
    devices: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Settings(Learning):
    """All that the weights depend on, besides the data."""

    architecture: Json
    weights: str | None  # the spec of the classifier whose weights the backbone starts from
    multi_label: bool

    @property
    def binary(self) -> bool:
        """Whether each class has a loss of its own."""
        return self.multi_label or self.architecture["pooling"] == "oquab"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "devices", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} cannot be used; give at least 1")
        if not 0 < self.lr < float("inf") or not 0 <= self.weight_decay < float("inf"):
            raise InputError(
                f"lr={self.lr}, weight_decay={self.weight_decay} cannot be used; give lr above 0"
            )
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed={self.seed} cannot be used; give 0 to 2**31 - 1")
        find_augmentation(self.augment)


class Run:
    """One training in its folder."""

    def __init__(
        self, folder: Path, data: LabeledImages, val: LabeledImages | None, settings: Settings
    ) -> None:
        self.folder = folder
        self.data = data
        self.val = val
        self.settings = settings
        self.about = {
            split: _digest_of(one)
            for split, one in (("train", data), ("val", val))
            if one is not None
        }
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.finished = False
        self.saved: Json = {}

    def take_up(self, resume: bool) -> bool:
        """Reads what an earlier call left; returns whether it had finished.

        Raises:
            InputError: it had other settings or data.
            TrainingError: it cannot be read.
        """
        path = self.folder / STATE
        if not path.exists():
            return False
        if not resume:
            for name in (STATE, HISTORY):
                (self.folder / name).unlink(missing_ok=True)
            return False
        self.saved = _read_state(path)
        self._check_same(json.loads(self.saved["identity"]))
        self.history, self.best, self.finished = (
            self.saved[key] for key in ("history", "best", "finished")
        )
        if self.finished and not read_card(self.folder)["finished"]:
            self._wrap_up()
        return self.finished

    def _identity(self) -> Json:
        return {**asdict(self.settings), "data": self.about}

    def _check_same(self, stored: Json) -> None:
        """Refuses to go on with a training of other settings or data."""
        mine, theirs = _with_dotted_names(self._identity()), _with_dotted_names(stored)
        differ = []
        for key in mine | theirs:
            was, now = theirs.get(key), mine.get(key)
            if was != now:
                differ.append(f"{key} was {was!r}, is {now!r}")
        if differ:
            way_out = "give the same, another out, or resume=False to begin anew"
            raise InputError(
                f"out={str(self.folder)!r} holds another training: {'; '.join(differ)}; {way_out}"
            )

    def ended(
        self,
        resume: bool,
        device: str,
        workers: int,
        progress: OnStep | None,
        on_epoch: OnEpoch | None,
    ) -> Trained:
        """What the training gave, once it has come to its end: now, or in an earlier call."""
        if not self.take_up(resume):
            self.go(device, workers, progress, on_epoch)
        return self.trained(device)

    def go(
        self, device: str, workers: int, progress: OnStep | None, on_epoch: OnEpoch | None
    ) -> None:
        """Trains, from the state that was taken up or from the start, to the end."""
        # a folder that cannot be written is known now
        keep(self.folder / HISTORY, json_bytes(self.history))
        fabric = start_fabric(device, self.settings.devices, self.settings.precision)
        net, preprocess = self._start()
        fitting = self._fitting(net, fabric, preprocess, workers)
        if self.saved:
            fitting.load(self.saved.pop("fitting"))

        def tell(step: int) -> None:
            if progress:
                progress(step, fitting.steps)

        while not self.finished:
            epoch = len(self.history)
            loss = fitting.fit(epoch, tell)
            row = {"epoch": epoch + 1, "train_loss": loss, **fitting.score(epoch)}
            self._add_to_history(row)
            if fabric.is_global_zero:
                self._save(row, fitting, preprocess)
            fabric.barrier()
            if on_epoch:
                on_epoch(row)
        if fabric.is_global_zero:
            self._wrap_up()
        fabric.barrier()

    def _fitting(
        self, net: LocalizationNet, fabric: Fabric, preprocess: Preprocess, workers: int
    ) -> Fitting:
        settings, val = self.settings, self.val
        rank, world = fabric.global_rank, fabric.world_size
        return Fitting(
            net,
            fabric,
            self._feed(self.data, preprocess, workers, rank, world),
            None if val is None else self._feed(val, preprocess, workers, rank, world),
            epochs=settings.epochs,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            binary=settings.binary,
            multi_label=settings.multi_label,
        )

    def _feed(
        self, data: LabeledImages, preprocess: Preprocess, workers: int, rank: int, world: int
    ) -> Feed:
        return Feed(
            data,
            preprocess,
            batch_size=self.settings.batch_size,
            augmentation=find_augmentation(self.settings.augment),
            seed=self.settings.seed,
            workers=workers,
            rank=rank,
            world=world,
        )

    def _start(self) -> tuple[LocalizationNet, Preprocess]:
        """The network and how pictures become its input."""
        settings = self.settings
        torch.manual_seed(settings.seed)
        net = build(settings.architecture)
        if self.saved:
            return net, card_preprocess(read_card(self.folder))
        preprocess = IMAGENET
        if settings.weights is not None:
            source = load_model(settings.weights)
            preprocess = source.preprocess or IMAGENET
            try:
                net.backbone.take_weights(source.module.state_dict())
            except ModelError as error:
                way_out = (
                    f"give size={preprocess.size}, for which they were made, or pretrained=False"
                )
                raise ModelError(f"{error}; {way_out}") from error
            # torchvision's GoogLeNet scales once more, to this
            if getattr(source.module, "transform_input", False):
                preprocess = replace(preprocess, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        height, width = settings.architecture["size"]
        return net, replace(preprocess, size=(height, width), resize=(height, width), fit="stretch")

    def _add_to_history(self, row: dict[str, float]) -> None:
        """Takes an epoch into the history."""
        self.history.append(row)
        if not self.best or _rank(row) > _rank(self.best):
            self.best = row
        patience = self.settings.patience
        stopped = patience is not None and row["epoch"] - self.best["epoch"] >= patience
        self.finished = stopped or len(self.history) == self.settings.epochs

    def _save(self, row: dict[str, float], fitting: Fitting, preprocess: Preprocess) -> None:
        """Puts an epoch on disk; the state comes last, so that what it says of the other files holds."""
        state = fitting.state()
        if row is self.best:
            tensors = {name: tensor.contiguous() for name, tensor in state["net"].items()}
            keep(self.folder / WEIGHTS, save(tensors))
            keep(self.folder / CARD, json_bytes(self._card(preprocess)))
        keep(self.folder / HISTORY, json_bytes(self.history))
        content = {
            "identity": json.dumps(self._identity()),
            "history": self.history,
            "best": self.best,
            "finished": self.finished,
            "fitting": state,
        }
        keep(self.folder / STATE, to_bytes(content))

    def _scores(self) -> Json:
        if self.val is None:
            return {}
        metric = "mean average precision" if self.settings.multi_label else "top-1"
        best = self.best
        return {
            "metric": metric,
            "value": best["score"],
            "loss": best["val_loss"],
            "epoch": best["epoch"],
            "pictures": len(self.val),
        }

    def _card(self, preprocess: Preprocess) -> Json:
        settings = asdict(self.settings)
        return make_card(
            preprocess,
            architecture=settings.pop("architecture"),
            labels=list(self.data.classes),
            multi_label=settings["multi_label"],
            scores=self._scores(),
            seed=settings["seed"],
            settings=settings,
            data=self.about,
            skipped=dict(self.data.skipped),
            finished=False,
        )

    def _wrap_up(self) -> None:
        """Draws the learning curves, and says on the card that this is all."""
        picture = learning_picture(
            self.history, metric=self._scores().get("metric", "score"), best=self.best["epoch"]
        )
        keep(self.folder / CURVES, png_bytes(picture))
        keep(self.folder / CARD, json_bytes({**read_card(self.folder), "finished": True}))

    def trained(self, device: str) -> Trained:
        """The best epoch's network, loaded from the folder."""
        model = load_model(str(self.folder), device=device)
        return Trained(model, self.folder, tuple(self.history), self._scores())


def _rank(row: Mapping[str, float]) -> tuple[float, float]:
    """The better the epoch, the larger; without scores the last epoch is best."""
    return row.get("score", 0.0), -row.get("val_loss", -row["epoch"])


def _read_state(path: Path) -> Json:
    try:
        found: Json = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        said = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise TrainingError(f"'{path}' cannot be read: {said}; resume=False begins anew") from error
    return found


def _digest_of(data: LabeledImages) -> Json:
    """What tells one data set from another: names, labels, and the pixels of a few pictures."""
    listed = json.dumps(
        [list(data.classes), list(data.names), [list(labels) for labels in data.labels]]
    )
    digest = hashlib.sha256(listed.encode())
    for index in range(0, len(data), max(1, len(data) // _LOOKED_AT)):
        digest.update(data[index].photo.tobytes())
    return {"title": data.title, "pictures": len(data), "digest": digest.hexdigest()[:16]}


def _with_dotted_names(settings: Mapping[str, object], before: str = "") -> dict[str, object]:
    """Nested settings as one level, with dotted names; what JSON makes of them."""
    found: dict[str, object] = {}
    for key, value in json.loads(json.dumps(settings)).items():
        if isinstance(value, dict):
            found |= _with_dotted_names(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found
