"""A first program with Grad-CAM: ResNet-18 learns some classes, and its last layer shows what it looks at.

First the map as it comes, 12 x 12 cells; then brought to the picture's size; at the right in JET colours, three tenths
of it on five tenths of the picture.

    python examples/first_grad_cam.py [OUT.png] [DATA]

DATA is such as stl10:FOLDER, with the files of STL-10; without it, things cut from sample photos are learned.
"""

from __future__ import annotations

import sys
import tempfile

import matplotlib
import numpy as np
from generic_features import generated as one_thing
from PIL import Image

import seewhy
from seewhy.data.sources import find_data
from seewhy.maps.values import normalize
from seewhy.models.training import train
from seewhy.render import contact_sheet

SIDE = 240


def grey(field: np.ndarray) -> Image.Image:
    return Image.fromarray(np.uint8(255 * field)).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "first_grad_cam.png"
    if len(sys.argv) > 2:
        learned, new = (find_data(sys.argv[2], split=split) for split in ("train", "test"))
    else:
        learned, new = one_thing(480, seed=0, size=96), one_thing(48, seed=1, size=96)
    folder = tempfile.mkdtemp()
    model = train(
        learned,
        val=new,
        backbone="timm:resnet18",
        pretrained=False,
        epochs=4,
        batch_size=16,
        out=folder,
    ).model
    pictures = []
    for i in range(5):
        photo = new[i].photo
        ex = seewhy.explain(model, photo, methods="grad_cam")
        heat = ex[0].heatmap()[0].numpy()
        jet = 255 * matplotlib.colormaps["jet"](heat)[:, :, :3]
        seen = np.asarray(photo.resize(heat.shape[::-1]), np.float64)
        overlay = Image.fromarray(np.uint8(0.3 * jet + 0.5 * seen)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        said = ex.predictions[0][0]
        pictures += [
            (
                photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC),
                f"true: {new.classes[new.labels[i][0]]}",
            ),
            (
                grey(normalize(ex[0].map)[0].numpy()),
                f"map of '{said.label}', {said.probability:.0%}",
            ),
            (grey(heat), "at the picture's size"),
            (overlay, "0.3 JET + 0.5 picture"),
        ]
    contact_sheet(pictures, columns=4).save(out)


if __name__ == "__main__":
    main()
