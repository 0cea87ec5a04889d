"""Finer-CAM against its closed form on a linear head, against autograd, and against pytorch-grad-cam's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from torch import Tensor, nn

import oracles
import seewhy
from seewhy.errors import InputError, ModelError, TargetError
from seewhy.methods.finer import RatherThanAlike
from tiny_models import TinyCNN, pictures, randomised


def close(found: Tensor, expected: Any, share: float = 1e-5) -> None:
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float32)
    atol = share * float(expected.abs().max()) + 1e-12
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def nearest(z: Tensor, own: int, references: int) -> list[int]:
    order = sorted(range(len(z)), key=lambda k: abs(float(z[k] - z[own])))
    return [k for k in order if k != own][:references]


@pytest.mark.parametrize("references", [1, 3, 9])
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_of_a_linear_head_it_is_a_sum_of_class_maps(references: int, strength: float) -> None:
    """CAM of w_t - strength sum_k (p_k + p_k (z_k - mean)) w_k, rectified, over the number of places."""
    net, x = randomised(TinyCNN()).double(), pictures(1, 16).double()
    a, _ = oracles.activation_and_gradient(net, net.relu2, x, 2)
    z, weights = net(x)[0].detach(), net.fc.weight.detach()
    others = nearest(z, 2, references)
    p = z[others].softmax(0)
    mean = (p * z[others]).sum()
    slopes = p * (1 + z[others] - mean)  # of sum p z, p with its gradient
    of_class = weights[2] - strength * (slopes[:, None] * weights[others]).sum(0)
    expected = torch.einsum("c,chw->hw", of_class, a[0]).clamp(min=0) / a[0, 0].numel()
    found = seewhy.methods.finer_cam(
        net, x, 2, layer="relu2", references=references, strength=strength
    )
    close(found[0], expected)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("finer_cam", pytorch_grad_cam.GradCAM),
        ("finer:layer_cam", pytorch_grad_cam.LayerCAM),
        ("finer:grad_cam", pytorch_grad_cam.GradCAM),
    ],
)
@pytest.mark.parametrize("layer", ["relu2", "conv1"])
def test_it_equals_pytorch_grad_cam(name: str, theirs: Any, layer: str) -> None:
    net, x = randomised(TinyCNN()).double(), pictures(2, 16).double()
    raw: list[np.ndarray] = []

    class Raw(theirs):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **kwargs: Any) -> Any:
            raw.append(super().get_cam_image(*args, **kwargs))
            return raw[-1]

    for ranks, strength in (([1, 2, 3], 1.0), ([1], 1.0), ([1, 2], 0.6)):
        raw.clear()
        finer = pytorch_grad_cam.FinerCAM(net, [net.get_submodule(layer)], base_method=Raw)
        finer(x, target_idx=3, alpha=strength, comparison_categories=ranks)
        method = seewhy.methods.find_method(name)
        found = method(net, x, 3, layer=layer, references=len(ranks), strength=strength)
        close(found, np.maximum(raw[0], 0))


def test_without_strength_it_is_its_base() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 16)
    for base in ("grad_cam", "hires_cam", "grad_cam_pp"):
        finer = seewhy.methods.find_method(f"finer:{base}")
        plain = seewhy.METHODS[base]
        assert finer.signed is plain.signed
        close(finer(net, x, [1, 4], strength=0.0), plain(net, x, [1, 4]))


def test_it_says_with_what_it_compared() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 16)
    (found,) = seewhy.explain(net, x, methods="finer_cam", targets="2", batch_size=1)
    z = net(x).detach()
    for image in range(2):
        facts, others = found.facts[image], nearest(z[image], 2, 3)
        assert facts["rather_than"] == others
        assert facts["weights"] == pytest.approx(z[image][others].softmax(0).tolist(), rel=1e-5)
    assert found.target == "2"


def test_a_model_with_its_softmax_inside_is_compared_by_its_logits() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 16)
    plain = seewhy.methods.finer_cam(net, x, 1, layer="relu2")
    found = seewhy.methods.finer_cam(nn.Sequential(net, nn.Softmax(1)), x, 1, layer="0.relu2")
    close(found, plain, share=1e-3)


@pytest.mark.parametrize("target", ["1 rather than 2", "log_odds:1", "probability:1"])
def test_what_is_no_one_class_is_refused(target: str) -> None:
    with pytest.raises(TargetError, match="Finer-CAM compares one class") as raised:
        seewhy.methods.finer_cam(randomised(TinyCNN()), pictures(1, 16), target)
    assert "\n" not in str(raised.value)


def test_wrong_bases_and_options_are_refused() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 16)
    for base in ("eigen_cam", "saliency", "lrp", "score_cam"):
        with pytest.raises(InputError, match="no class activation map by gradients"):
            seewhy.methods.find_method(f"finer:{base}")
    with pytest.raises(InputError, match="references=0"):
        seewhy.methods.finer_cam(net, x, 1, references=0)
    with pytest.raises(InputError, match="strength=-1"):
        seewhy.methods.finer_cam(net, x, 1, strength=-1.0)
    with pytest.raises(ModelError, match="has no probability"):
        seewhy.methods.finer_cam(seewhy.wrap(net, gives="score"), x, 1)
    with pytest.raises(TargetError, match="the model has one column"):
        seewhy.methods.finer_cam(seewhy.wrap(randomised(TinyCNN(1)), gives="logits"), x, 0)


def test_its_target_is_cut_with_its_images() -> None:
    z = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    target = RatherThanAlike(
        seewhy.targets.Logit((0, 2)), 1, numbers=seewhy.targets.Numbers("logits")
    )
    torch.testing.assert_close(target(z), torch.tensor([1.0, 1.0]))
    assert target.images == 2
    torch.testing.assert_close(target.rows([1])(z[1:]), torch.tensor([1.0]))
