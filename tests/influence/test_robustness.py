"""What an index stands: a curvature that is lost, machines that differ, classes that change places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from influence_cases import NOT_TRAINED, fit, gradient, held_back, network, training
from seewhy.errors import InputError, ModelError
from seewhy.influence import InfluenceIndex, find_solver
from seewhy.influence.gradients.per_example import example_gradients
from seewhy.influence.index.building import Cost
from seewhy.influence.index.fingerprint import checksums
from seewhy.influence.problem import Problem
from two_processes import run_two

pytestmark = NOT_TRAINED


def alike() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network, and examples all of whose directions are alike: any basis of them is one of eigenvectors."""
    generator = torch.Generator().manual_seed(0)
    images = torch.linalg.qr(
        torch.randn(16, 16, generator=generator, dtype=torch.float64)
    ).Q.reshape(16, 1, 4, 4)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12, bias=False), nn.Tanh(), nn.Linear(12, 4)
    ).double()
    return net, (images, torch.arange(16) % 4)


@pytest.mark.parametrize("dim", [None, 200])
def test_a_curvature_that_was_lost_is_not_mixed_with_another(
    dim: int | None, tmp_path: Path
) -> None:
    net, data = alike()
    options = {"solver": find_solver("ekfac", dim=dim), "l2": 0.01}
    fit(net, data, out=tmp_path, **options)
    (curvature,) = tmp_path.glob("curvature-*")
    curvature.write_bytes(curvature.read_bytes()[:-1] + b"?")
    options["batch_size"] = 5  # rounding leads to other eigenvectors
    found = fit(net, data, out=tmp_path, **options).scores(*data)
    torch.testing.assert_close(found, fit(net, data, **options).scores(*data), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("solver", ["ekfac", "random", "last_layer", "trak"])
def test_models_in_bfloat16(solver: str) -> None:
    x, y = training(12)
    index = fit(network().bfloat16(), (x.bfloat16(), y), solver=solver, l2=0.1)
    tested, labels = held_back()
    assert index.scores(tested.bfloat16(), labels).isfinite().all()
    assert index.self_influence().isfinite().all()


def test_classes_that_change_places_are_noticed() -> None:
    net = nn.Linear(4096, 13, bias=False)  # as many as rows are added up
    seen = checksums([net])
    with torch.no_grad():
        net.weight.copy_(net.weight.flip(0))
    assert checksums([net]) != seen


def test_the_estimate_knows_of_projected_gradients() -> None:
    net, data = alike()
    said: list[Cost] = []
    for dim in (None, 4):
        fit(net, data, solver=find_solver("ekfac", dim=dim), l2=0.1, announce=said.append)
    weights = sum(p.numel() for p in net.parameters())
    assert (
        said[1].memory >= 8 * weights * 8 + 4 * weights * 4
    )  # a batch's gradients, and the projection's matrix
    assert said[1].disk < said[0].disk


PROCESSES: dict[str, dict[str, Any]] = {
    "conjugate_gradient": {"curvature": "gauss_newton"},
    "ekfac": {"dim": 30},
    "arnoldi": {"curvature": "gauss_newton", "krylov": 12, "rank": 6},
}


def asked(solver: str, folder: Path) -> tuple[Tensor, Tensor]:
    net, _ = alike()
    images, labels = (
        torch.randn(13, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double(),
        torch.arange(13) % 4,
    )
    made = find_solver(solver, **PROCESSES[solver])
    index = InfluenceIndex.fit(
        net, (images, labels), solver=made, l2=0.1, out=folder, batch_size=3, shard_rows=5
    )
    return index.scores(images[:4], labels[:4]), index.self_influence()


def one_of_two(rank: int, folder: Path) -> None:
    eigh: Any = torch.linalg.eigh
    if rank:  # another machine may give eigenvectors another sign

        def turned(matrix: Tensor) -> Any:
            found = eigh(matrix)
            return torch.return_types.linalg_eigh((found.eigenvalues, -found.eigenvectors))

        torch.linalg.eigh = turned
    for solver in PROCESSES:
        torch.save(asked(solver, folder / solver), folder / f"{solver}-{rank}.pt")


@pytest.mark.long
def test_processes_agree_where_they_might_not(tmp_path: Path) -> None:
    run_two(__file__, tmp_path)
    for solver in PROCESSES:
        expected = asked(solver, tmp_path / f"{solver}-alone")
        for rank in range(2):
            found = torch.load(tmp_path / f"{solver}-{rank}.pt")
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_a_kernel_that_rounding_spoils() -> None:
    x, y = training(6)
    net, data = network().float(), (x.float(), y)
    fit(net, data, solver=find_solver("trak", dim=64, damping=1e-5))
    with pytest.raises(InputError, match="damping=1e-12 is too little"):
        fit(net, data, solver=find_solver("trak", dim=64, damping=1e-12))


class Cropped(nn.Conv2d):
    """Convolves less than it is given."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[:, :, 1:, 2:])


@pytest.mark.parametrize(
    "conv", [Conv2dSame(3, 4, 3, stride=2), Conv2dSame(3, 4, (2, 5), dilation=2), Cropped(3, 4, 3)]
)
def test_convolutions_with_a_forward_of_their_own(conv: nn.Conv2d) -> None:
    torch.manual_seed(0)
    net = (
        nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        .double()
        .eval()
    )
    x, y = torch.randn(6, 3, 9, 8, dtype=torch.float64), torch.arange(6) % 3
    problem = Problem(modules=(net,), count=6, l2=0.1)
    expected = torch.stack(
        [gradient(net, F.cross_entropy(net(a[None]), b[None])) for a, b in zip(x, y, strict=True)]
    )
    torch.testing.assert_close(example_gradients(problem, x, y), expected)
    solver: Any = find_solver("ekfac")
    if isinstance(conv, Cropped):
        with pytest.raises(ModelError, match="used other than by calling its layer"):
            solver.fit(problem, lambda: [(x, y)])
    else:
        solver.fit(problem, lambda: [(x, y)])
        assert solver.train_rows(problem, x, y)["rows"].isfinite().all()


def test_python_m_seewhy() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "seewhy", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip()
