"""Generic localisation features (Zhou et al., CVPR 2016, section 4): classes that a network never learned, localised.

A linear support vector machine on the pooled features of a network trained on ImageNet; its weights give the CAM.

    python examples/generic_features.py [OUT.png] [FOLDER]

FOLDER holds a folder of pictures for each class; without it, things cut from sample photos are used.
"""

from __future__ import annotations

import sys

from composites import GROUNDS, THINGS, Composites

import seewhy
from seewhy.data import LabeledImages
from seewhy.data.sources import find_data
from seewhy.metrics import PointingGame
from seewhy.models.training.features import linear_svm
from seewhy.render import contact_sheet


def generated(count: int, *, seed: int, size: int = 224) -> LabeledImages:
    names = list(THINGS)
    labels = [(i % len(names),) for i in range(count)]
    contents = [
        (GROUNDS[i // len(names) % len(GROUNDS)], (names[label],))
        for i, (label,) in enumerate(labels)
    ]
    return Composites(contents, labels, names, seed=seed, size=size)


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "generic_features.png"
    if len(sys.argv) > 2:
        train, test = (
            find_data(f"folder:{sys.argv[2]}", split=split) for split in ("train", "test")
        )
    else:
        train, test = generated(160, seed=0), generated(64, seed=1)
    model = linear_svm(seewhy.load_model(), train, regularization=0.01)
    labels = [train.classes[label] for (label,) in test.labels]
    ex = seewhy.explain(
        model, [test[i].photo for i in range(len(test))], methods="cam", targets=[labels]
    )
    right = [said[0].label == label for said, label in zip(ex.predictions, labels, strict=True)]
    print(
        f"{len(train)} pictures learned; of {len(test)} new ones {sum(right) / len(right):.0%} named"
    )
    truths = [
        truth and truth.cropped(placement.box, ex[0].image_size)
        for truth, placement in zip(
            (test[i].truth for i in range(len(test))), ex.placements, strict=True
        )
    ]
    if any(truths):
        pointing = PointingGame()
        pointing.update(ex[0].map, truths)
        print(
            f"the map's peak is on the thing, give or take 15 pixels, in {pointing.compute().mean:.0%}"
        )
    shown = range(min(16, len(test)))
    contact_sheet(
        [(ex.picture(ex[0], i, style="heatmap"), ex[0].labels[i]) for i in shown], columns=8
    ).save(out)


if __name__ == "__main__":
    main()
