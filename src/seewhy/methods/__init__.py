"""Every attribution method, each also a plain function `(model, x, target) -> (N, h, w)`; `METHODS` lists them."""

from __future__ import annotations

from ..engine.call import Call
from ..engine.flow import find_flow
from ..engine.targets.detection import DetectionSimilarity
from .ablation import ablation_cam, score_cam
from .cam import (
    eigen_cam,
    eigen_grad_cam,
    elementwise_grad_cam,
    fem,
    fullgrad,
    grad_cam,
    grad_cam_pp,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from .catalog import METHODS, find_method
from .finer import finer, finer_cam
from .formula import HOW_IT_RUNS
from .gradient import (
    deconvnet,
    guided_backprop,
    guided_grad_cam,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smooth_grad,
    smoothed,
)
from .lime.lime import lime
from .method import Method
from .occlusion import occlusion
from .pooled_cam import cam
from .relevance import clrp, clrp_two_pass, layer_relevance, lrp, relevance_cam, sglrp
from .rise.rise import rise, sure
from .rise.state import RiseState
from .shared import Result, SharedPass, shared_pass

__all__ = [
    "HOW_IT_RUNS",
    "METHODS",
    "Call",
    "DetectionSimilarity",
    "Method",
    "Result",
    "RiseState",
    "SharedPass",
    "ablation_cam",
    "cam",
    "clrp",
    "clrp_two_pass",
    "deconvnet",
    "eigen_cam",
    "eigen_grad_cam",
    "elementwise_grad_cam",
    "fem",
    "find_method",
    "find_flow",
    "finer",
    "finer_cam",
    "fullgrad",
    "grad_cam",
    "grad_cam_pp",
    "guided_backprop",
    "guided_grad_cam",
    "hires_cam",
    "input_x_gradient",
    "integrated_gradients",
    "layer_cam",
    "layer_relevance",
    "lime",
    "lrp",
    "occlusion",
    "relevance_cam",
    "rise",
    "saliency",
    "score_cam",
    "sglrp",
    "shared_pass",
    "smooth_grad",
    "smoothed",
    "sure",
    "xgrad_cam",
]
