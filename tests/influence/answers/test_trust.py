"""Figures of influences against planted truth; label errors on digits; the same influences from several processes."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from influence_oracles import Newton, batches, cnn, digits, problem, softmax_regression, train
from seewhy.errors import InputError
from seewhy.influence.answers.trust import (
    found_after,
    leave_one_out,
    linear_datamodeling_score,
    mislabel_curve,
    over_seeds,
    random_subsets,
    spearman,
    tail_patch,
)
from seewhy.influence.solvers.catalog import find_solver


def test_datamodelling_score() -> None:
    influences = torch.randn(30, 50, dtype=torch.float64)
    subsets = random_subsets(50, 80, seed=1)
    assert (subsets.sum(1) == 25).all()
    assert torch.equal(subsets, random_subsets(50, 80, seed=1))
    linear = -(subsets.double() @ influences.T)
    assert linear_datamodeling_score(influences, subsets, linear.exp()).value == pytest.approx(1)
    assert linear_datamodeling_score(-influences, subsets, linear.exp()).value == pytest.approx(-1)
    chance = linear_datamodeling_score(torch.randn(30, 50), subsets, linear)
    assert chance.low < 0 < chance.high
    noisy = linear + 5 * torch.randn(80, 30)
    score = linear_datamodeling_score(influences, subsets, noisy)
    expected = [scipy.stats.spearmanr(linear[:, t], noisy[:, t]).statistic for t in range(30)]
    assert score.value == pytest.approx(sum(expected) / 30)
    assert score.low < score.value < score.high < score.low + 0.3
    assert str(score) == f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
    with pytest.raises(InputError, match="do not go together"):
        linear_datamodeling_score(influences, subsets, linear.T)
    for options in ({"share": 1.0}, {"subsets": 1}):
        with pytest.raises(InputError, match="a true part, 2 subsets"):
            random_subsets(50, **{"subsets": 80, **options})  # type: ignore[arg-type]


def test_ranks_with_ties() -> None:
    a = torch.tensor([[1.0, 2, 2, 3, 3, 3, 0], [0, 0, 0, 0, 0, 0, 0]]).T
    b = torch.tensor([[5.0, 1, 4, 4, 2, 9, 7], [1, 2, 3, 4, 5, 6, 7]]).T
    found = spearman(a, b)
    assert float(found[0]) == pytest.approx(scipy.stats.spearmanr(a[:, 0], b[:, 0]).statistic)
    assert float(found[1]) == 0


def test_intervals_over_seeds() -> None:
    values = [0.91, 0.95, 0.93, 0.97]
    found = over_seeds(values)
    low, high = scipy.stats.t.interval(0.95, 3, loc=0.94, scale=scipy.stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((0.94, low, high))
    with pytest.raises(InputError, match="2 seeds or more"):
        over_seeds([1.0])


def test_mislabel_curve() -> None:
    curve = mislabel_curve(
        torch.tensor([0.1, 0.9, 0.5, 0.8, 0.0]), torch.tensor([True, True, False, False, False])
    )
    assert curve.tolist() == [0.5, 0.5, 0.5, 1.0, 1.0]
    assert [found_after(curve, share) for share in (0.1, 0.2, 0.6, 0.61, 1.0)] == [
        0.5,
        0.5,
        0.5,
        1.0,
        1.0,
    ]
    with pytest.raises(InputError, match="at least one wrong"):
        mislabel_curve(torch.rand(3), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(InputError, match="share=0"):
        found_after(curve, 0)


def test_flipped_labels_of_digits_are_found() -> None:
    images, labels = digits()
    n = 1400
    shares: dict[str, list[float]] = {"last_layer": [], "loss": [], "random": []}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        wrong = torch.randperm(n, generator=generator) < n // 10
        shift = torch.randint(1, 10, (n,), generator=generator)
        noisy = torch.where(wrong, (labels[:n] + shift) % 10, labels[:n])
        features = F.pad(images[:n].flatten(1), (0, 1), value=1.0)
        weights = Newton(features, noisy, 10, 0.01).full
        net: Any = softmax_regression()
        net[1].weight.data, net[1].bias.data = weights[:, :-1], weights[:, -1]
        it = problem(net, n, 0.01)
        for name, found in shares.items():
            solver = find_solver(name)
            solver.fit(it, batches(images[:n], noisy, 200))
            found.append(
                found_after(
                    mislabel_curve(solver.self_influence(it, images[:n], noisy), wrong), 0.2
                )
            )
    assert over_seeds(shares["last_layer"]).low > 0.95
    assert over_seeds(shares["loss"]).value > 0.95  # the baseline is as good here
    assert 0.1 < over_seeds(shares["random"]).value < 0.3


def test_leave_one_out() -> None:
    weights = torch.tensor([[1.0, 2, 3, 4], [0, -1, 0, 5]])
    found = leave_one_out(lambda kept: weights @ kept.float(), 4, [3, 0])
    assert found.tolist() == [[-4, -1], [-5, 0]]
    with pytest.raises(InputError, match="example 4 is none of the 4"):
        leave_one_out(lambda kept: weights @ kept.float(), 4, [4])


def test_tail_patch() -> None:
    images, labels = (part[:60] for part in digits(4))
    torch.manual_seed(0)
    net = train(softmax_regression(16), images, labels, 0.05)
    it = problem(net, 60, 0.05)
    tests = digits(4)[0][100:104], digits(4)[1][100:104]
    solver = find_solver("gradient_dot")
    found = solver.dot(solver.test_rows(it, *tests), solver.train_rows(it, images, labels))
    rate = 1e-4
    helped = tail_patch(it, (images, labels), *tests, found, k=3, learning_rate=rate)
    top = found.topk(3).values.mean(1) * 60 * rate
    torch.testing.assert_close(
        helped, top, rtol=1e-2, atol=1e-8
    )  # a small step does what the dot product says
    harmed = tail_patch(it, (images, labels), *tests, -found, k=3, learning_rate=rate)
    assert (harmed < 0).all()
    with pytest.raises(InputError, match="k=0"):
        tail_patch(it, (images, labels), *tests, found, k=0)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["last_layer", "hessian", "conjugate_gradient", "arnoldi", "ekfac", "trak"]
)
def test_two_processes_find_the_same(name: str) -> None:
    """Threads in place of processes, each with its part of the data; sums meet at a barrier."""
    images, labels = digits(4)
    few = labels < 5
    images, labels = images[few][:90], labels[few][:90]
    net = train(cnn(), images, labels, 0.05)
    options: dict[str, Any] = {"arnoldi": {"krylov": 30, "rank": 10}, "trak": {"dim": 64}}.get(
        name, {}
    )
    one = find_solver(name, **options)
    it = problem(net, 90, 0.05)
    one.fit(it, batches(images, labels, 30))
    expected = one.dot(
        one.test_rows(it, images[:4], labels[:4]), one.train_rows(it, images, labels)
    )
    barrier, shared = threading.Barrier(2, timeout=60), {}
    found: dict[int, Tensor] = {}
    turn = threading.Lock()

    def work(rank: int) -> None:
        def reduce(total: Tensor) -> Tensor:
            turn.release()
            shared[rank] = total.clone()
            barrier.wait()
            total.copy_(shared[0] + shared[1])
            barrier.wait()
            turn.acquire()
            return total

        turn.acquire()
        mine = problem(copy.deepcopy(net), 90, 0.05)
        part = slice(0, 60) if rank == 0 else slice(60, 90)
        solver = find_solver(name, **options)
        solver.fit(mine, batches(images[part], labels[part], 30), reduce=reduce)
        found[rank] = solver.dot(
            solver.test_rows(mine, images[:4], labels[:4]), solver.train_rows(mine, images, labels)
        )
        turn.release()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in (0, 1):
        torch.testing.assert_close(found[rank], expected, rtol=1e-4, atol=1e-7)
