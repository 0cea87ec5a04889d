"""The written-out list of all methods."""

from __future__ import annotations

from ..arguments import brief
from ..errors import ArgumentTypeError
from ..names import known_name
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
from .finer import finer, finer_cam
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
from .rise.rise import rise

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        grad_cam,
        grad_cam_pp,
        hires_cam,
        layer_cam,
        xgrad_cam,
        elementwise_grad_cam,
        eigen_cam,
        eigen_grad_cam,
        fem,
        cam,
        finer_cam,
        fullgrad,
        saliency,
        smooth_grad,
        input_x_gradient,
        integrated_gradients,
        guided_backprop,
        deconvnet,
        guided_grad_cam,
        lrp,
        clrp,
        clrp_two_pass,
        sglrp,
        layer_relevance,
        relevance_cam,
        score_cam,
        ablation_cam,
        rise,
        lime,
        occlusion,
    )
}


def find_method(name: str | Method) -> Method:
    """Returns the method of that name; "smooth:NAME" is SmoothGrad over the method NAME, "finer:NAME" Finer-CAM.

    Names are taken as people write them: "Grad-CAM" and "gradcam" are grad_cam.

    Raises:
        InputError: there is none.

    Example:
        >>> seewhy.methods.find_method("Grad-CAM").name, seewhy.methods.find_method("smooth:lrp").title
        ('grad_cam', 'SmoothGrad of LRP')
    """
    if isinstance(name, Method):
        return name
    if not isinstance(name, str):
        raise ArgumentTypeError(
            f"method {brief(name)} is of type {type(name).__name__}; give a name, or a Method"
        )
    if name.startswith("smooth:"):
        return smoothed(find_method(name.removeprefix("smooth:")))
    if name.startswith("finer:"):
        return finer(find_method(name.removeprefix("finer:")))
    titles = {known: method.title for known, method in METHODS.items()}
    return METHODS[
        known_name(name, METHODS, what="method", titles=titles, ways="'seewhy methods' lists them")
    ]
