"""Concepts in weakly labelled pictures (Zhou et al., CVPR 2016, section 5): words of captions, found in the pictures.

Each picture has a sentence, and nobody says which word is where. A word of enough captions becomes a class: pictures
with it in their caption against pictures without. Its CAM shows what the word means.

    python examples/concepts.py [OUT.png]
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
from composites import GROUNDS, THINGS, Composites

import seewhy
from seewhy.models.training.features import linear_svm
from seewhy.render import contact_sheet

SAID = ("{0} beside {1}, {2} below", "{2} with {0} and {1}", "here is {1} on {2}, and {0} too")
GROUND_WORDS = dict(zip(GROUNDS, ("grass", "stones", "bricks", "stars"), strict=True))
COMMONEST = 0.6  # words in more of the captions than this say nothing
RAREST = 10


def captioned(count: int, seed: int) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    rng = np.random.default_rng(seed)
    contents, captions = [], []
    for _ in range(count):
        ground, things = (
            str(rng.choice(GROUNDS)),
            tuple(map(str, rng.permutation(list(THINGS))[:2])),
        )
        contents.append((ground, things))
        captions.append(str(rng.choice(SAID)).format(*things, GROUND_WORDS[ground]))
    return contents, captions


def words(caption: str) -> set[str]:
    return set(caption.replace(",", "").split())


def main() -> None:
    contents, captions = captioned(240, seed=0)
    counts = Counter(word for caption in captions for word in words(caption))
    vocabulary = sorted(w for w, n in counts.items() if RAREST <= n <= COMMONEST * len(captions))
    labels = [
        tuple(i for i, word in enumerate(vocabulary) if word in words(caption))
        for caption in captions
    ]
    model = linear_svm(
        seewhy.load_model(),
        Composites(contents, labels, vocabulary, multi_label=True),
        regularization=0.01,
    )
    new, sentences = captioned(8, seed=1)
    test = Composites(new, [()] * len(new), vocabulary, seed=1)
    pictures = []
    for i, sentence in enumerate(sentences):
        things = [*new[i][1], GROUND_WORDS[new[i][0]]]
        ex = seewhy.explain(model, test[i].photo, methods="cam", targets=things)
        pictures.append((test[i].photo, sentence))
        pictures += [
            (ex.picture(a, style="heatmap"), f"'{thing}'")
            for thing, a in zip(things, ex, strict=True)
        ]
    print(f"{len(vocabulary)} concepts from {len(captions)} captions: {', '.join(vocabulary)}")
    contact_sheet(pictures, columns=8).save(sys.argv[1] if len(sys.argv) > 1 else "concepts.png")


if __name__ == "__main__":
    main()
