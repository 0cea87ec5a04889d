"""What a scene class looks at (Zhou et al., CVPR 2016, section 5): the objects most often under its CAM.

Scenes are learned from their names alone. For each are listed the objects that are most frequent in it, and those that
its CAM covers: what tells the scene from others, not what is merely there.

    python examples/scene_objects.py [OUT.png]
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
from composites import GROUNDS, THINGS, Composites

import seewhy
from seewhy.models.training.features import linear_svm
from seewhy.render import contact_sheet

# cups are everywhere; each scene has two things of its own
SCENES = {
    "garden": ("cat", "flower"),
    "journey": ("pagoda", "rocket"),
    "clinic": ("retina", "face"),
}
COMMON = ("cup", "cup", "cup", "helmet")
HIGH = 0.5  # of the map's maximum


def scenes(count: int, seed: int) -> Composites:
    rng = np.random.default_rng(seed)
    labels = [(i % len(SCENES),) for i in range(count)]
    contents = []
    for (label,) in labels:
        own = list(SCENES.values())[label]
        things = (
            rng.choice(own),
            rng.choice(COMMON),
            *rng.permutation([*own, *COMMON])[: rng.integers(0, 2)],
        )
        contents.append((str(rng.choice(GROUNDS)), tuple(map(str, things))))
    return Composites(contents, labels, list(SCENES), seed=seed)


def main() -> None:
    train, test = scenes(150, seed=0), scenes(60, seed=1)
    model = linear_svm(seewhy.load_model(), train, regularization=0.01)
    labels = [test.classes[label] for (label,) in test.labels]
    ex = seewhy.explain(
        model, [test[i].photo for i in range(len(test))], methods="cam", targets=[labels]
    )
    there, covered = ({name: Counter() for name in SCENES} for _ in range(2))
    for i, (label, heat) in enumerate(zip(labels, ex[0].heatmap(), strict=True)):
        truth = test[i].truth.cropped(ex.placements[i].box, tuple(heat.shape))
        for thing, mask in zip(truth.labels.tolist(), truth.masks, strict=True):
            there[label][list(THINGS)[thing]] += 1
            covered[label][list(THINGS)[thing]] += float((heat[mask] > HIGH).float().mean())
    for name in SCENES:
        print(
            f"{name}: most frequent {', '.join(thing for thing, _ in there[name].most_common(3))};",
            end=" ",
        )
        shares = {thing: covered[name][thing] / there[name][thing] for thing in there[name]}
        best = sorted(shares, key=lambda thing: -shares[thing])[:3]
        print("most under the CAM", ", ".join(f"{thing} ({shares[thing]:.0%})" for thing in best))
    pictures = [(ex.picture(ex[0], i, style="heatmap"), ex[0].labels[i]) for i in range(12)]
    contact_sheet(pictures, columns=6).save(
        sys.argv[1] if len(sys.argv) > 1 else "scene_objects.png"
    )


if __name__ == "__main__":
    main()
