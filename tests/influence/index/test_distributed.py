"""Two processes make and ask the index that one process makes and asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from influence_cases import NOT_TRAINED, held_back, network, one_thread, training
from seewhy.errors import InputError
from seewhy.influence import InfluenceIndex, find_solver
from two_processes import run_two

pytestmark = NOT_TRAINED


SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradient_dot": ("gradient_dot", {}),
    "last_layer": ("last_layer", {}),
    "cholesky": ("last_layer", {"solve": "cholesky"}),
    "iterative": ("last_layer", {"solve": "conjugate_gradient"}),
}


def asked(folder: Path, solver: str, count: int = 37) -> dict[str, Any]:
    """Everything an index of `count` examples says."""
    net, train = network(), training(count)
    name, settings = SOLVERS[solver]
    options: dict[str, Any] = {
        "solver": find_solver(name, **settings),
        "l2": 0.1,
        "batch_size": 4,
        "shard_rows": 6,
    }
    index = InfluenceIndex.fit(net, train, out=folder, **options)
    index.add(train)
    index.remove([3, 50])
    x, y = held_back()
    return {
        "scores": index.scores(x, y),
        "own": index.self_influence(),
        "query": [[e.index for e in (*q.helpful, *q.harmful)] for q in index.query(x, 6, labels=y)],
        "opened": InfluenceIndex.open(folder, net, data=train, added=[train]).scores(x, y),
        "manifest": json.loads((folder / "manifest.json").read_text()),
    }


def one_of_two(rank: int, folder: Path) -> None:
    for solver in SOLVERS:
        found = asked(folder / solver, solver)
        torch.save(found, folder / f"{solver}-{rank}.pt")
    try:
        asked(folder / "few", "last_layer", count=3)
    except InputError as error:
        (folder / f"said-{rank}").write_text(str(error))


@pytest.mark.long
def test_two_processes_are_as_one(tmp_path: Path) -> None:
    run_two(__file__, tmp_path)
    for solver in SOLVERS:
        with one_thread():
            alone = asked(tmp_path / f"{solver}-alone", solver)
        for rank in range(2):
            found = torch.load(tmp_path / f"{solver}-{rank}.pt", weights_only=False)
            for name in ("scores", "own", "opened"):
                torch.testing.assert_close(found[name], alone[name], rtol=1e-5, atol=1e-9)
            assert found["query"] == alone["query"]
            ours, theirs = (
                {k: v for k, v in m["manifest"].items() if k != "files"} for m in (found, alone)
            )
            assert ours == theirs
            assert found["manifest"]["files"].keys() == alone["manifest"]["files"].keys()
        names = sorted(path.name for path in (tmp_path / solver).iterdir())
        assert names == sorted(path.name for path in (tmp_path / f"{solver}-alone").iterdir())
    for rank in range(2):
        assert (
            "3 examples in batches of batch_size=4 leave some of the 2 processes"
            in (tmp_path / f"said-{rank}").read_text()
        )
