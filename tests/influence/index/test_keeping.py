"""The index on disk: opened, added to, interrupted, torn and killed it is as fit anew; what does not fit is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from influence_cases import (
    NOT_TRAINED,
    K,
    N,
    Photos,
    fit,
    network,
    prepared,
    training,
)
from seewhy.errors import InputError
from seewhy.influence import InfluenceIndex
from tiny_models import TinyCNN, pictures

pytestmark = NOT_TRAINED


def test_opened_again_it_is_the_same(net: TinyCNN, data: Any, tested: Any, tmp_path: Path) -> None:
    fitted = fit(net, data, solver="last_layer", l2=0.1, out=tmp_path, about={"model": "tiny"})
    expected = fitted.scores(*tested)
    opened = InfluenceIndex.open(tmp_path, net, verify="full")
    assert torch.equal(opened.scores(*tested), expected)
    assert opened.about == {"model": "tiny"}
    own = fitted.self_influence()
    assert torch.equal(InfluenceIndex.open(tmp_path, net).self_influence(), own)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    again = fit(net, data, solver="last_layer", l2=0.1, out=tmp_path)  # nothing is left to do
    assert torch.equal(again.scores(*tested), expected)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == before


def test_what_the_rows_do_not_tell_needs_the_data(net: TinyCNN, data: Any, tmp_path: Path) -> None:
    own = fit(net, data, out=tmp_path).self_influence()
    assert torch.equal(InfluenceIndex.open(tmp_path, net).self_influence(), own)  # it is kept
    for path in tmp_path.glob("self-*"):
        path.unlink()
    with pytest.raises(InputError, match="needs the training data of the index"):
        InfluenceIndex.open(tmp_path, net).self_influence()


@pytest.mark.parametrize("solver", ["gradient_dot", "last_layer"])
def test_adding_and_removing_is_fitting_anew(
    net: TinyCNN, data: Any, tested: Any, solver: str, tmp_path: Path
) -> None:
    x, y = data
    options = {"solver": solver, "l2": 0.1}
    index = fit(net, (x[:25], y[:25]), out=tmp_path, **options)
    index.add((x[25:], y[25:]))
    torch.testing.assert_close(
        index.scores(*tested), fit(net, data, **options).scores(*tested), rtol=1e-5, atol=1e-9
    )
    index.remove([0, 17, 30])
    index.remove(["42"])
    kept = [i for i in range(N) if i not in (0, 17, 30, 42)]
    anew = fit(net, (x[kept], y[kept]), **options)
    assert index.ids.tolist() == kept
    opened = InfluenceIndex.open(tmp_path, net, data=(x[:25], y[:25]), added=[(x[25:], y[25:])])
    for found in (index, opened):
        torch.testing.assert_close(
            found.scores(*tested), anew.scores(*tested), rtol=1e-5, atol=1e-9
        )
        torch.testing.assert_close(
            found.self_influence(), anew.self_influence(), rtol=1e-8, atol=1e-12
        )
        ours, theirs = (i.query(tested[0], 4, labels=tested[1]) for i in (found, anew))
        for a, b in zip(ours, theirs, strict=True):
            assert [e.index for e in a.helpful] == [kept[e.index] for e in b.helpful]
    assert len(list(tmp_path.glob("rows-*"))) == len(index._head["shards"])  # what is stale is gone
    for wrong in ([17], ["17"], [N], ["no such name"]):
        with pytest.raises(InputError, match="is no example of the index"):
            index.remove(wrong)
    with pytest.raises(InputError, match="names all 39 examples"):
        index.remove(kept)
    with pytest.raises(InputError, match="is of 2 data sets, 1 were given"):
        InfluenceIndex.open(tmp_path, net, data=data)


def test_the_curvature_can_be_kept(net: TinyCNN, data: Any, tested: Any, tmp_path: Path) -> None:
    x, y = data
    first = fit(net, (x[:30], y[:30]), solver="last_layer", l2=0.1, out=tmp_path)
    before = first.scores(*tested)
    opened = InfluenceIndex.open(tmp_path, net)  # the first data are not at hand
    with pytest.raises(InputError, match="needs the training data"):
        opened.add((x[30:], y[30:]))
    torch.testing.assert_close(opened.scores(*tested), before)  # as if nothing had been
    opened.add((x[30:], y[30:]), curvature="keep")
    torch.testing.assert_close(
        opened.scores(*tested)[:, :30], before * 30 / N, rtol=1e-5, atol=1e-10
    )
    opened.remove([1], curvature="keep")
    torch.testing.assert_close(
        opened.scores(*tested)[:, 1:29], before[:, 2:] * 30 / (N - 1), rtol=1e-5, atol=1e-10
    )
    with pytest.raises(InputError, match="curvature='drop' is not known"):
        opened.remove([2], curvature="drop")  # type: ignore[arg-type]


def test_a_model_that_does_not_fit_is_refused(net: TinyCNN, data: Any, tmp_path: Path) -> None:
    fit(net, data, out=tmp_path)
    other = network()
    with torch.no_grad():
        other.fc.weight[0, 0] += 1e-9
    for use in (
        lambda: InfluenceIndex.open(tmp_path, other),
        lambda: fit(other, data, out=tmp_path),
    ):
        with pytest.raises(
            InputError, match=r"model does not fit the index in '.*': 'fc.weight' differ"
        ):
            use()
    with pytest.raises(InputError, match=r"'conv1.weight' and 13 more of its tensors differ"):
        InfluenceIndex.open(tmp_path, network(1))
    other = network()
    other.bn1.num_batches_tracked += 1  # no output depends on it
    InfluenceIndex.open(tmp_path, other)


@pytest.mark.parametrize("form", ["tensors", "pairs", "photos"])
def test_data_that_do_not_fit_are_refused(
    form: str, net: TinyCNN, data: Any, photos: Photos, tmp_path: Path
) -> None:
    x, model = data[0], prepared(net)

    def made(order: list[int], *, label: int | None = None, changed: bool = False) -> Any:
        labels = [i % K for i in order]
        if label is not None:
            labels[0] = label
        if form == "photos":
            own = [photos.photos[i] for i in order]
            own[0] = own[1] if changed else own[0]
            return Photos(own, labels, [f"photo-{i}" for i in order])
        images = x[order].clone()
        images[0, 0, 0, 0] += changed
        both = (images, torch.tensor(labels))
        return both if form == "tensors" else TensorDataset(*both)

    order = list(range(20))
    swapped = [19, *order[1:19], 0]
    index = fit(model, made(order), out=tmp_path)
    InfluenceIndex.open(tmp_path, model, data=made(order))
    cases = [
        (made(swapped), "its order changed"),
        (made(order[:-1]), "it has 19 examples, the index 20"),
        (made(order, label=3), "differ"),
        (made(order, changed=True), "differ"),
    ]
    for wrong, said in cases:
        for use in (
            lambda wrong=wrong: InfluenceIndex.open(tmp_path, model, data=wrong),
            lambda wrong=wrong: fit(model, wrong, out=tmp_path),
        ):
            with pytest.raises(InputError, match=f"data does not fit the index in '.*': .*{said}"):
                use()
    index.add(made(order[:3]))
    with pytest.raises(InputError, match="holds an index that was added to"):
        fit(model, made(order), out=tmp_path)


def test_settings_that_differ_are_refused(net: TinyCNN, data: Any, tmp_path: Path) -> None:
    fit(net, data, out=tmp_path)
    for options, said in (
        ({"solver": "embedding"}, "solver='gradient_dot', not 'embedding'"),
        ({"l2": 0.5}, "l2=0.0, not 0.5"),
        ({"parameters": ["fc.weight"]}, "parameters=None"),
        ({"dtype": "float16"}, "dtype=None"),
    ):
        with pytest.raises(InputError, match=said):
            fit(net, data, out=tmp_path, **options)
    with pytest.raises(InputError, match="fit with loss=cross_entropy; give it"):
        InfluenceIndex.open(
            tmp_path, net, loss=lambda out, y: F.multi_margin_loss(out, y, reduction="none")
        )
    with pytest.raises(InputError, match="holds no influence index"):
        InfluenceIndex.open(tmp_path / "none", net)


def test_a_disk_without_room_is_refused(
    net: TinyCNN, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(
        InputError, match=r"has 1 kB free, the index needs \d+ kB; give a solver with dim="
    ):
        fit(net, data, out=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_only_what_is_torn_is_made_anew(
    net: TinyCNN, data: Any, tested: Any, damage: str, tmp_path: Path
) -> None:
    expected = fit(net, data, solver="last_layer", l2=0.1, out=tmp_path).scores(*tested)
    shards = sorted(tmp_path.glob("*.safetensors"))
    for torn in (shards[0], shards[3]):  # the curvature sorts before the rows
        before = {path: path.stat().st_mtime_ns for path in shards if path != torn}
        torn.write_bytes(torn.read_bytes()[:-9]) if damage == "cut" else torn.unlink()
        with pytest.raises(InputError, match="missing, torn or damaged"):
            InfluenceIndex.open(tmp_path, net).scores(*tested)
        again = fit(net, data, solver="last_layer", l2=0.1, out=tmp_path)
        assert torch.equal(again.scores(*tested), expected)
        assert {path: path.stat().st_mtime_ns for path in shards if path != torn} == before


def test_an_interrupted_fit_goes_on(net: TinyCNN, data: Any, tested: Any, tmp_path: Path) -> None:
    expected = fit(net, data, solver="last_layer", l2=0.1).scores(*tested)

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise StopError

    for steps in (0, 3, 8, 4):
        left = steps
        with pytest.raises(StopError):
            fit(net, data, solver="last_layer", l2=0.1, out=tmp_path, progress=stop)
        with pytest.raises(InputError, match="is not finished; fit it again"):
            InfluenceIndex.open(tmp_path, net)
    index = fit(net, data, solver="last_layer", l2=0.1, out=tmp_path)
    assert torch.equal(index.scores(*tested), expected)
    left = 14
    with pytest.raises(StopError):
        index.add((tested[0].repeat(11, 1, 1, 1), tested[1].repeat(11)), progress=stop)
    for found in (
        index,
        InfluenceIndex.open(tmp_path, net),
    ):  # the old one stands until the new one is whole
        assert torch.equal(found.scores(*tested), expected)


KILLED = """
import sys, torch
sys.path.insert(0, {tests!r})
from influence_cases import fit, network, training
torch.set_num_threads(1)
print("ready", flush=True)
fit(network(), training(400), solver="last_layer", l2=0.1, batch_size=4, shard_rows=8, out={out!r})
"""


@pytest.mark.long
def test_killed_at_random_points_it_ends_the_same(tmp_path: Path) -> None:
    net, test = network(), pictures(3, 12, seed=1).double()
    train = training(400)
    whole = fit(net, train, solver="last_layer", l2=0.1, batch_size=4, shard_rows=8)
    folder, chance, kills = tmp_path / "killed", random.Random(0), 0
    command = [
        sys.executable,
        "-c",
        KILLED.format(tests=str(Path(__file__).parents[2]), out=str(folder)),
    ]
    for _ in range(6):
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.0, 0.6))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
        child.stdout.close()
    assert kills
    index = fit(net, train, solver="last_layer", l2=0.1, batch_size=4, shard_rows=8, out=folder)
    assert torch.equal(index.scores(test), whole.scores(test))
    assert index.names == whole.names
    told = json.loads((folder / "manifest.json").read_text())
    assert told["complete"]
    assert sorted(told["files"]) == sorted(
        path.name for path in folder.iterdir() if path.suffix == ".safetensors"
    )
    assert InfluenceIndex.open(folder, net, verify="full").labels.tolist() == train[1].tolist()
