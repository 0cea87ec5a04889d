"""Any bytes for what reads pictures, targets, options, and files of annotations and of labels.

What comes out is a result or a `SeewhyError`. The test has atheris try for a quarter of a minute each, led by what of
the code the bytes reach; it runs this file itself, which can be done for longer:

    python tests/contracts/test_fuzzing.py pictures -max_total_time=600
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

if __name__ == "__main__":
    import atheris

    watched = atheris.instrument_imports(include=["seewhy"])
else:
    watched = contextlib.nullcontext()
with watched:
    import torch

    from seewhy.cli import parsing
    from seewhy.cli.metric_texts import metric_of
    from seewhy.data.images import read_image
    from seewhy.data.labels_file import read_labels
    from seewhy.data.sources import find_data
    from seewhy.engine.targets.numbers import Numbers
    from seewhy.engine.targets.resolve import resolve
    from seewhy.errors import SeewhyError
    from seewhy.metrics.metric import ExplanationMetric

SECONDS = 15
FOLDER = Path.cwd() / "seewhy-fuzz"  # made when this is run
SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
LABELS = ["tabby", "tiger cat", "crane, bird"]


def written(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def pictures(data: bytes) -> None:
    read_image(written("any.png", data), max_pixels=2**22)


def targets(data: bytes) -> None:
    for found in resolve(data.decode(errors="replace"), SCORES, LABELS, numbers=Numbers("logits")):
        found.score(SCORES)


def options(data: bytes) -> None:
    text = data.decode(errors="replace")
    for read in (lambda: parsing.options([text]), lambda: metric_of(text, ExplanationMetric)):
        with contextlib.suppress(SeewhyError):
            read()


def lists(data: bytes) -> None:
    find_data(f"csv:{written('list.csv', data)}")


def labels(data: bytes) -> None:
    for name in ("labels.txt", "labels.json", "labels.csv"):
        with contextlib.suppress(SeewhyError):
            read_labels(written(name, data))


def boxes(data: bytes) -> None:
    """COCO's, whose pictures are not there."""
    folder = FOLDER / "coco" / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instances_val2017.json").write_bytes(data)
    find_data(f"coco:{FOLDER / 'coco'}", split="val", on_error="skip")


SEEDS: dict[Callable[[bytes], None], list[bytes]] = {
    targets: [b"margin:tabby/tiger cat", b"probability:top2", b"top3", b"crane, bird"],
    options: [b"rise.samples=200", b"deletion:step=16,output=logit", b"lime.superpixels=slic"],
    lists: [b"path,label,x0,y0,x1,y1,split\na.png,cat,1,2,3,4,train\n"],
    labels: [b'{"0": "cat", "1": "dog"}', b"0,cat\n1,dog\n"],
    boxes: [
        json.dumps(
            {"images": [{"id": 1, "file_name": "a.png"}], "categories": [], "annotations": []}
        ).encode()
    ],
    pictures: [],
}


@pytest.mark.long
@pytest.mark.parametrize("name", [each.__name__ for each in SEEDS])
def test_nothing_raw_comes_out(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    limits = [
        f"-max_total_time={SECONDS}",
        "-rss_limit_mb=6000",
        "-timeout=20",
        f"-artifact_prefix={tmp_path}/",
    ]
    words = [sys.executable, __file__, name, *limits]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = next(line for line in done.stderr.splitlines() if line.startswith("Done "))
    assert int(runs.split()[1]) > 100


def main() -> None:
    names = {each.__name__: each for each in SEEDS}
    target = names[sys.argv.pop(1)]
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(SEEDS[target]):
        (corpus / str(i)).write_bytes(seed)
    warnings.simplefilter("ignore")

    def ours_alone(data: bytes) -> None:
        with contextlib.suppress(SeewhyError):
            target(data)

    atheris.Setup([*sys.argv, str(corpus)], ours_alone)
    atheris.Fuzz()  # which leaves the process


if __name__ == "__main__":
    main()
