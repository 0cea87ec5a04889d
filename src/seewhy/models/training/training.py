"""Training of localisation networks from image labels, which goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ...arguments import checked
from ...data.dataset import LabeledImages, check_splits
from ...errors import InputError
from ..devices import usable_device
from ..networks.backbones import EMBEDDED
from ..networks.heads import SHARPNESS, Pooling
from .choice import Choice
from .fitting import own_randomness
from .run import Learning, Run, Settings, Trained


@checked
@own_randomness()
def train(
    data: LabeledImages,
    *,
    val: LabeledImages | None = None,
    backbone: str = EMBEDDED,
    pooling: Pooling = "gap",
    pretrained: bool = True,
    multi_label: bool | None = None,
    size: tuple[int, int] | None = None,
    stages: int | str = "auto",
    stride: int | None = None,
    units: int | None = None,
    adaptation: int | None = None,
    sharpness: float = SHARPNESS,
    dropout: float = 0.0,
    epochs: int = 8,
    batch_size: int = 32,
    lr: float = 3e-3,
    weight_decay: float = 1e-2,
    augment: str = "move",
    patience: int | None = None,
    seed: int = 0,
    out: str | Path = "seewhy-train",
    resume: bool = True,
    device: str = "cpu",
    devices: int = 1,
    precision: str = "32-true",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
) -> Trained:
    """Trains a localisation network on image labels alone.

    AdamW, with a learning rate that rises in a line and falls in half a cosine. After each epoch all that the next one
    depends on is on disk; killed at any moment and called again, on a CPU it ends with the very weights of a training
    left alone. Cross-entropy is made small, or with several labels a picture, or the "oquab" head, the sum of a binary
    log-loss for each class.

    Args:
        data: pictures and labels; boxes are not looked at.
        val: held back, in the same classes: chooses the best epoch by top-1 accuracy or, with several labels a picture,
            by mean average precision over classes. Without it the last epoch counts.
        backbone: "efficientnet_lite0", "timm:NAME", "torchvision:alexnet", "torchvision:vgg16" or
            "torchvision:googlenet"; with "@FILE" it starts from those weights.
        pooling: "gap" (CAM), "gmp", "lse" or "oquab", see `seewhy.models.networks.heads`.
        pretrained: whether the backbone starts from published weights; those of "efficientnet_lite0" need no download.
        multi_label: whether a picture may show several classes; None as the data say.
        size: (H, W) of the input; pictures are stretched to it. None is that of the pictures where a few of them
            agree, up to 256 pixels, else 224 x 224, and 448 x 448 for the convolutionised networks of Oquab et al.
        stages: of a timm backbone to keep; "auto" the last that leaves a map of 12 cells along the shorter edge, as
            Zhou et al. cut their networks, and "all" all.
        stride: pixels for one cell of the map, by dilation, with all stages.
        units: of a convolution 3 x 3 before the head; None is 1,024 for the networks of Zhou et al., 256 for a
            backbone that was cut, and no such convolution for others.
        adaptation: units of Oquab's FCa; None is 2,048, or 256 on a backbone that was cut.
        sharpness: r of "lse".
        dropout: before the last layer.
        epochs: how many.
        batch_size: on each device.
        lr: AdamW's largest learning rate.
        weight_decay: AdamW's.
        augment: "none", "move" (zoom, shift, turn, light) or "mirror" (also left-right).
        patience: epochs without a better score after which it stops; None for never.
        seed: of weights, order, augmentation and dropout.
        out: the folder of weights, card, state, history and learning curves.
        resume: whether a training in `out` goes on; one that is finished is loaded. False begins anew.
        device: "cpu", "cuda", "cuda:1", "mps".
        devices: how many.
        precision: Lightning's: "32-true", "16-mixed", "bf16-mixed".
        workers: processes that read pictures; 0 reads them in this one, and keeps them in memory.
        progress: called with the number of steps done and of all.
        on_epoch: called with each row of the history.

    Raises:
        InputError: an argument out of range, a device that is not here, data that do not go together, or a training in
            `out` of other settings.
        TrainingError: the loss is no longer finite, or the disk is full; what was saved stays.
        MissingExtraError: lightning is not installed.

    Example:
        >>> scenes = seewhy.data.Scenes(8, size=64)
        >>> tiny = {"backbone": "timm:test_resnet", "pretrained": False, "size": (64, 64)}
        >>> trained = seewhy.wsol.train(scenes, epochs=1, out="mine", **tiny)
        >>> seewhy.load_model("mine").labels[:3]
        ('0', '1', '2')
    """
    usable_device(device)
    choice = Choice(
        backbone, pooling, pretrained, size, stages, stride, units, adaptation, sharpness, dropout
    )
    learning = Learning(
        epochs, batch_size, lr, weight_decay, augment, patience, precision, devices, seed
    )
    run = _prepared_run(Path(out), data, val, choice, learning, multi_label)
    return run.ended(resume, device, workers, progress, on_epoch)


def _prepared_run(
    folder: Path,
    data: LabeledImages,
    val: LabeledImages | None,
    choice: Choice,
    learning: Learning,
    multi_label: bool | None,
) -> Run:
    """The run of these data and settings, checked."""
    data = _readable(data)
    val = None if val is None else _readable(val)
    several = data.multi_label if multi_label is None else multi_label
    _check_data(data, val, several)
    if learning.patience is not None and val is None:
        raise InputError(
            f"patience={learning.patience} needs pictures held back; give val, or leave it out"
        )
    settings = Settings(
        **vars(learning),
        architecture=choice.architecture(data),
        weights=choice.weights,
        multi_label=several,
    )
    return Run(folder, data, val, settings)


def _readable(data: LabeledImages) -> LabeledImages:
    return data.readable() if data.on_error == "skip" and not data.checked else data


def _check_data(data: LabeledImages, val: LabeledImages | None, several: bool) -> None:
    if not len(data) or (val is not None and not len(val)):
        raise InputError("the data hold no picture; give some to learn from, and to hold back")
    if val is not None:
        check_splits(data, val)
    for one in (data, val):
        if one is None or several:
            continue
        for name, labels in zip(one.names, one.labels, strict=True):
            if len(labels) != 1:
                raise InputError(
                    f"picture '{name}' has {len(labels)} labels; give one each, or multi_label=True"
                )
