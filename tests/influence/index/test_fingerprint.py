"""That a model has changed since an index was made of it is noticed, however it was written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_cases import NOT_TRAINED, fit, held_back, network, training
from seewhy.errors import InputError, ModelError
from seewhy.influence import Problem, find_solver, match_regions
from seewhy.influence.index.fingerprint import checksums
from seewhy.influence.modes import ordinary
from tiny_models import TinyCNN

pytestmark = NOT_TRAINED
LARGE = 2**17  # numbers


def through_data(net: TinyCNN) -> None:
    net.fc.weight.data[1, 2] += 1e-12  # leaves the version of the tensor as it is


def new_storage(net: TinyCNN) -> None:
    net.fc.bias.data = net.fc.bias.data + 1


def step(net: TinyCNN) -> None:
    with torch.no_grad():
        net.conv1.weight.mul_(0.999)


def statistics(net: TinyCNN) -> None:
    net.bn1.running_mean.data[0] += 0.5


def training_pass(net: TinyCNN) -> None:
    net.train()
    net(held_back()[0])
    net.eval()


def another_layer(net: TinyCNN) -> None:
    net.fc = nn.Linear(12, 5).double()


WRITES = [through_data, new_storage, step, statistics, training_pass, another_layer]


@pytest.mark.parametrize("write", WRITES)
def test_a_changed_model_is_refused_by_every_question(write: Callable[[TinyCNN], None]) -> None:
    net, (x, y) = network(), held_back()
    index = fit(net, training(12), solver="last_layer", l2=0.1)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    expected, head = index.scores(x, y), net.fc
    write(net)
    for use in (
        lambda: index.scores(x, y),
        lambda: index.query(x, 2),
        index.self_influence,
        lambda: match_regions(index, x[:1], [0]),
        lambda: index.remove([0]),
    ):
        with pytest.raises(
            InputError, match=r"model does not fit the index in '.*': '.*' .*differ"
        ):
            use()
    net.fc = head
    net.load_state_dict(state)
    assert torch.equal(index.scores(x, y), expected)


def test_what_leaves_the_values_is_not_refused() -> None:
    net, (x, y) = network().float(), held_back()
    index = fit(net, (training(12)[0].float(), training(12)[1]), solver="last_layer", l2=0.1)
    x = x.float()
    expected = index.scores(x, y)
    net.bn1.num_batches_tracked += 1
    net.requires_grad_(False)
    with torch.no_grad():
        net.fc.weight.copy_(net.fc.weight.clone())
    for layout in (torch.channels_last, torch.contiguous_format):
        net.to(memory_format=layout)
        torch.testing.assert_close(index.scores(x, y), expected)
        assert match_regions(index, x[:1], [0]).exact


@pytest.mark.parametrize("name", ["last_layer", "gradient_dot", "ekfac", "trak"])
def test_models_made_in_inference_mode(name: str) -> None:
    tests, labels = held_back()
    solver = find_solver(name, **({"dim": 64} if name == "trak" else {}))
    ordinary_index = fit(network(), training(12), solver=solver, l2=0.1)
    with torch.inference_mode():
        net = network()
        x = tests.clone()
        index = fit(net, training(12), solver=solver, l2=0.1)
        torch.testing.assert_close(index.scores(x, labels), ordinary_index.scores(tests, labels))
        torch.testing.assert_close(index.self_influence(), ordinary_index.self_influence())
        assert len(index.query(x, 2)) == 4
        assert bool(match_regions(index, x[:1], [0, 3]).test.map.isfinite().all())
        net.fc.weight[0, 0] += 1
        for use in (lambda: index.query(x, 2), lambda: match_regions(index, x[:1], [0])):
            with pytest.raises(InputError, match=r"'fc.weight' differ"):
                use()
        net.fc.weight[0, 0] -= 1
    assert net.fc.weight.is_inference()
    with pytest.raises(
        ModelError, match=r"made under torch.inference_mode, .* give .*ordinary\(model\)"
    ):
        Problem(modules=(net,), count=1)
    copy = ordinary(net)
    assert copy is ordinary(copy)
    assert Problem(modules=(copy,), count=1).names


class Holder(nn.Module):
    """Tensors of all kinds."""

    def __init__(self, kinds: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in kinds.items():
            self.register_buffer(name, tensor)


def kinds() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    flat = drawn(LARGE)
    return {
        "large": drawn(200, LARGE // 400 + 3),
        "odd": drawn(LARGE // 2 + 1, dtype=torch.bfloat16),
        "shifted": flat[1 : LARGE // 2].view(-1, 5),
        "turned": drawn(300, 301).T,
        "scalar": drawn(),
        "short": drawn(3, 5, dtype=torch.float16),
        "complex": drawn(4, dtype=torch.complex64),
        "whole": torch.arange(5),
        "truth": torch.tensor([True, False, True]),
        "none": torch.empty(0, 3),
    }


def test_every_changed_number_is_seen() -> None:
    net = Holder(kinds())
    seen = checksums([net])
    assert seen == checksums([Holder(kinds())])
    generator = torch.Generator().manual_seed(1)
    for tensor in net.state_dict().values():
        for place in torch.randint(
            max(1, tensor.numel()), (20,), generator=generator
        ).tolist() * bool(tensor.numel()):
            at = torch.unravel_index(torch.tensor(place), tensor.shape)
            before = tensor[at].clone()
            tensor.data[at] = (
                ~before if before.dtype == torch.bool else -before + (before == 0).to(before)
            )
            assert checksums([net]) != seen
            tensor.data[at] = before
    assert checksums([net]) == seen


def swapped(a: Tensor, i: Any, j: Any) -> None:
    kept = a[i].clone()
    a[i] = a[j]
    a[j] = kept


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (512, 512), (1000, 130)])
def test_values_that_changed_places_are_seen(shape: tuple[int, ...]) -> None:
    layer = Holder(
        {
            "weight": torch.randn(*shape, generator=torch.Generator().manual_seed(0)).round(
                decimals=1
            )
        }
    )
    weight, seen = layer.weight, checksums([layer])
    assert isinstance(weight, Tensor)
    for i, j in ((0, 1), (0, shape[0] // 2), (3, 3 + 13), (shape[0] - 2, shape[0] - 1)):
        for rows in (weight.data, weight.data.transpose(0, 1)):
            if i < len(rows) and j < len(rows) and not torch.equal(rows[i], rows[j]):
                swapped(rows, i, j)
                assert checksums([layer]) != seen
                swapped(rows, i, j)
    flat = weight.data.view(-1)
    for j in range(2, 400, 7):
        if float(flat[0]) != float(flat[j]):
            swapped(flat, 0, j)
            assert checksums([layer]) != seen
            swapped(flat, 0, j)
    assert checksums([layer]) == seen
    if shape[0] == shape[1]:
        weight.data = weight.data.T
        assert checksums([layer]) != seen
