"""A text detector learned without boxes (Zhou et al., CVPR 2016, section 5): from pictures with and without text.

python examples/text_detector.py [OUT.png] [FOLDER of the training run]
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from composites import photo
from PIL import Image, ImageDraw, ImageFont

import seewhy
from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.truth import Truth
from seewhy.maps.boxes import boxes
from seewhy.metrics import PointingGame
from seewhy.models.training import train
from seewhy.render import contact_sheet
from seewhy.render.boxes import FOUND, outline

PHOTOS = (
    "chelsea",
    "coffee",
    "rocket",
    "astronaut",
    "brick",
    "grass",
    "gravel",
    "china.jpg",
    "flower.jpg",
)
WORDS = (
    "open",
    "cafe",
    "exit",
    "museum",
    "taxi",
    "bakery",
    "stop",
    "books",
    "hotel",
    "24h",
    "sale",
    "parking",
)


@cache
def fonts() -> list[Path]:
    return sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))


class Signs(LabeledImages):
    """Pieces of sample photos; every second one has a word on it, turned, in a colour of its own."""

    title, classes, multi_label = "signs", ("no text", "text"), False

    def __init__(self, count: int, *, seed: int, size: int = 96) -> None:
        self.names = [str(i) for i in range(count)]
        self.labels = [(i % 2,) for i in range(count)]
        self.seed, self.size = seed, size

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.seed, index))
        whole = photo(str(rng.choice(PHOTOS)))
        side = int(min(whole.size) * rng.uniform(0.4, 0.9))
        x, y = (int(rng.integers(edge - side)) for edge in whole.size)
        canvas = whole.crop((x, y, x + side, y + side)).resize((self.size, self.size))
        if not self.labels[index][0]:
            return Example(self.names[index], canvas, self.labels[index])
        font = ImageFont.truetype(
            str(rng.choice(fonts())), int(self.size * rng.uniform(0.14, 0.26))
        )
        word = str(rng.choice(WORDS))
        ink = Image.new("L", (round(font.getlength(word)) + 8, font.size * 3 // 2))
        ImageDraw.Draw(ink).text((4, 0), word, font=font, fill=255)
        ink = ink.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC, expand=True)
        ink = ink.crop(ink.getbbox())
        ink.thumbnail((self.size - 2, self.size - 2))
        left, top = (int(rng.integers(self.size - extent)) for extent in ink.size)
        canvas.paste(tuple(rng.integers(256, size=3).tolist()), (left, top), ink)
        box = torch.tensor([[left, top, left + ink.width, top + ink.height]])
        return Example(
            self.names[index], canvas, (1,), Truth(canvas.size[::-1], box, torch.tensor([1]))
        )


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "text_detector.png"
    folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
    model = train(Signs(1200, seed=0), val=Signs(300, seed=1), epochs=4, out=folder).model
    test = Signs(64, seed=2)
    shown = [i for i in range(len(test)) if test.labels[i][0]]
    ex = seewhy.explain(
        model, [test[i].photo for i in range(len(test))], methods="cam", targets="text"
    )
    right = [
        said[0].index == label for said, (label,) in zip(ex.predictions, test.labels, strict=True)
    ]
    print(f"of {len(test)} new pictures {sum(right) / len(right):.0%} are told right: text or none")
    pointing = PointingGame(tolerance=1)
    pointing.update(ex[0].map[shown], [test[i].truth for i in shown])
    print(f"the map's peak is on the text in {pointing.compute().mean:.0%} of those that have some")
    pictures = []
    for i in shown[:16]:
        picture = ex.picture(ex[0], i, style="heatmap").resize((240, 240))
        for box in boxes(ex[0].heatmap()[i], rule="cam2016", size=(240, 240))[0].boxes.tolist():
            outline(picture, box, FOUND, 2)
        pictures.append((picture, ""))
    contact_sheet(pictures, columns=8).save(out)


if __name__ == "__main__":
    main()
