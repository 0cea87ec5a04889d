"""What stands before a localisation head: any timm network, the surgeries of the papers, and what of it to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError, ModelError, did_you_mean
from .features import features_layout

EMBEDDED = "efficientnet_lite0"
_USE = "use 'efficientnet_lite0', 'timm:NAME' or 'torchvision:' with alexnet, vgg16 or googlenet"


class Backbone(nn.Module):
    """The part of a classifier that gives a picture of features.

    Attributes:
        channels: of what it gives.
        sources: the names of its tensors begin as the keys, in the classifier that it was cut from as the values.
    """

    def __init__(self, channels: int, sources: Mapping[str, str]) -> None:
        super().__init__()
        self.channels, self.sources = channels, dict(sources)

    def take_weights(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the state dict of the whole classifier; dense layers that became convolutions are reshaped.

        Raises:
            ModelError: a tensor is missing or has another size.
        """
        taken = {}
        for name, own in self.state_dict().items():
            start = next(start for start in self.sources if name.startswith(start))
            theirs = state.get(self.sources[start] + name.removeprefix(start))
            if theirs is None and name.endswith("num_batches_tracked"):
                theirs = own
            if theirs is None or theirs.numel() != own.numel():
                raise ModelError(
                    f"the weights do not fit the backbone: its tensor {name!r} is missing or differs"
                )
            taken[name] = theirs.reshape(own.shape)
        self.load_state_dict(taken)


class _TimmNetwork(nn.Module):
    """What a timm network has, for the type checker."""

    num_features: int
    feature_info: Sequence[Mapping[str, int]]
    prune_intermediate_layers: Callable[..., object]
    forward_features: Callable[[Tensor], Tensor]
    forward_intermediates: Callable[..., Sequence[Tensor]]


class TimmFeatures(Backbone):
    """A timm network up to its pooling, or its first stages.

    Args:
        net: has no head.
        stages: how many to keep, of those that timm's feature_info lists; None for all.
        size: (H, W) of the input.
    """

    def __init__(self, net: _TimmNetwork, stages: int | None, size: tuple[int, int]) -> None:
        super().__init__(net.num_features, {"net.": ""})
        self.net = net
        self.last = None if stages is None else stages - 1
        if stages is not None:
            net.prune_intermediate_layers([stages - 1], prune_head=True)
        net.eval()
        with torch.no_grad():  # what num_features and feature_info say is not always so
            features = self(torch.zeros(1, 3, *size))
        net.train()
        layout = features_layout(tuple(features.shape), 1, size)
        if layout is not None:
            self.channels = layout.to_grid(features).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Gives what the network gives before it pools: maps, channels first or last, or tokens."""
        if self.last is None:
            return self.net.forward_features(x)
        features = self.net.forward_intermediates(
            x, indices=[self.last], intermediates_only=True, stop_early=True
        )
        return features[0]


class Stack(Backbone):
    """Layers of a torchvision network in a row, under the names that they have there."""

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        channels: int,
        sources: Mapping[str, str] | None = None,
    ):
        super().__init__(channels, {**(sources or {}), "": ""})
        self.layers = tuple(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Runs them in order."""
        for name in self.layers:
            x = getattr(self, name)(x)
        return x


def _alexnet(whole: bool) -> Stack:
    """AlexNet up to conv5, 13 x 13 of 224; or the whole, FC6 and FC7 as convolutions."""
    from torchvision import models

    net = models.alexnet(weights=None)
    if not whole:
        return Stack({"features": net.features[:12]}, 256)
    dense = {"fc6.": "classifier.1.", "fc7.": "classifier.4."}
    return Stack({"features": net.features, **_convolutionized(256, 6)}, 4096, dense)


def _vgg16(whole: bool) -> Stack:
    """VGG-16 up to conv5-3, 14 x 14 of 224; or the whole, FC6 and FC7 as convolutions."""
    from torchvision import models

    net = models.vgg16(weights=None)
    if not whole:
        return Stack({"features": net.features[:30]}, 512)
    dense = {"fc6.": "classifier.0.", "fc7.": "classifier.3."}
    return Stack({"features": net.features, **_convolutionized(512, 7)}, 4096, dense)


def _convolutionized(channels: int, size: int) -> dict[str, nn.Module]:
    """FC6 and FC7 as convolutions: on a map of size x size the same numbers, on a larger one a map of them."""
    return {
        "fc6": nn.Conv2d(channels, 4096, size),
        "relu6": nn.ReLU(inplace=True),
        "drop6": nn.Dropout(0.5),
        "fc7": nn.Conv2d(4096, 4096, 1),
        "relu7": nn.ReLU(inplace=True),
        "drop7": nn.Dropout(0.5),
    }


def _googlenet(whole: bool) -> Stack:
    """GoogLeNet up to inception4e, 14 x 14 of 224; or all of its convolutions, 7 x 7."""
    from torchvision import models

    net = models.googlenet(weights=None, aux_logits=False, init_weights=False)
    names = [name for name, _ in net.named_children()]
    last = "inception5b" if whole else "inception4e"
    layers = {name: net.get_submodule(name) for name in names[: names.index(last) + 1]}
    return Stack(layers, 1024 if whole else 832)


SURGERIES: dict[str, Callable[[bool], Stack]] = {
    "alexnet": _alexnet,
    "vgg16": _vgg16,
    "googlenet": _googlenet,
}


def make_backbone(
    spec: str,
    *,
    size: tuple[int, int],
    stages: int | None = None,
    stride: int | None = None,
    whole: bool = False,
) -> Backbone:
    """Makes a backbone with random weights.

    Args:
        spec: "efficientnet_lite0", "timm:NAME", "torchvision:alexnet", "torchvision:vgg16" or "torchvision:googlenet".
        size: (H, W) of its input; transformers are built for one size.
        stages: how many of a timm network's stages to keep; None for all.
        stride: pixels of the input for one cell of the map, where timm can dilate in place of striding; None for the
            network's own.
        whole: of torchvision's networks all layers before the classes, as in Oquab et al.; else as in Zhou et al.

    Raises:
        InputError: there is no such backbone, or not with so many stages or at this stride.
    """
    timm_name = _timm_name(spec)
    if timm_name:
        net = _timm(timm_name, size, stride)
        most = len(net.feature_info)
        if stages is not None and not 1 <= stages <= most:
            raise InputError(
                f"stages={stages} cannot be kept of backbone {spec!r}, which has {most}"
            )
        return TimmFeatures(net, stages, size)
    kind, _, name = spec.partition(":")
    if kind != "torchvision" or name not in SURGERIES:
        raise InputError(
            f"backbone={spec!r} is not known{did_you_mean(name or kind, [EMBEDDED, *SURGERIES])}; {_USE}"
        )
    if stages is not None or stride is not None:
        said = f"stages={stages}" if stages is not None else f"stride={stride}"
        raise InputError(
            f"{said}: backbone {spec!r} is cut as in the paper; leave it out, or take a timm backbone"
        )
    return SURGERIES[name](whole)


def _timm_name(spec: str) -> str | None:
    """What timm calls a backbone; None where it is another's."""
    if spec == EMBEDDED:
        return "tf_efficientnet_lite0"
    return spec.removeprefix("timm:") if spec.startswith("timm:") else None


def _timm(name: str, size: tuple[int, int], stride: int | None) -> _TimmNetwork:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise InputError(
            f"backbone 'timm:{name}': timm has no such model{did_you_mean(name, timm.list_models())}"
        )
    options = {"num_classes": 0}
    if stride is not None:
        options["output_stride"] = stride
    try:
        net: _TimmNetwork = timm.create_model(name, img_size=size, **options)
        return net
    except TypeError:  # convolutions take any size, and no such argument
        pass
    try:
        net = timm.create_model(name, **options)
    except (TypeError, NotImplementedError, AssertionError) as error:
        if stride is None:
            raise
        raise InputError(
            f"stride={stride}: 'timm:{name}' cannot be had at it; leave it out"
        ) from error
    return net


def stages_for(spec: str, size: tuple[int, int], cells: int = 12) -> int | None:
    """How many stages of a backbone leave a map of at least `cells` along the shorter edge; None for all of them.

    Zhou et al. cut their networks so, because a finer map finds objects better.
    """
    name = _timm_name(spec)
    if name is None:
        return None
    stages = _timm(name, size, None).feature_info
    fine = [i for i, stage in enumerate(stages, 1) if min(size) >= cells * stage["reduction"]]
    return max(fine) if fine and max(fine) < len(stages) else None
