"""The figure of Relevance-CAM (Lee et al., CVPR 2021): what methods show at shallow and deep layers of one network.

python examples/shallow_layers.py [OUT.png] [PHOTO]
"""

from __future__ import annotations

import sys

import skimage.data

import seewhy
from seewhy.render import contact_sheet

METHODS = ["grad_cam", "grad_cam_pp", "layer_cam", "relevance_cam", "layer_relevance"]


def main() -> None:
    photo = sys.argv[2] if len(sys.argv) > 2 else skimage.data.coffee()
    model = seewhy.load_model()
    ex = seewhy.explain(model, photo, methods=METHODS, layers="all-stages", targets="top1")
    pictures = [
        (ex.picture(a, style="heatmap"), f"{a.title} · {a.map.shape[1]} x {a.map.shape[2]}")
        for method in METHODS
        for a in ex.select(method=method)
    ]
    contact_sheet(pictures, columns=len(pictures) // len(METHODS)).save(
        sys.argv[1] if len(sys.argv) > 1 else "shallow_layers.png"
    )


if __name__ == "__main__":
    main()
