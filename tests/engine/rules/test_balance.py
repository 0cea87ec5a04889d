"""What stays behind of each image's relevance, whichever axis the images are on."""

from __future__ import annotations

import pytest
import torch

from seewhy.engine.rules.balance import Balance, by_image, on_the_way_back

N = 3


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((N, 3, 4, 4), 0),
        ((N, 7), 0),
        ((N, 5, 2), 0),
        ((5, N, 2), 1),
        ((N, N, 4, 4), 0),
        ((5, N, 2, 4), 1),
    ],
)
def test_the_sum_of_each_image(shape: tuple[int, ...], axis: int) -> None:
    r = torch.randn(shape)
    found = by_image(r, N)
    assert found is not None
    torch.testing.assert_close(found, r.transpose(0, axis).flatten(1).sum(1))


def test_windows_and_heads_lie_within_their_image() -> None:
    r = torch.randn(N, 4, 5, 2)
    found = by_image(r.flatten(0, 1), N)
    assert found is not None
    torch.testing.assert_close(found, r.flatten(1).sum(1))


@pytest.mark.parametrize("shape", [(N, N, 2), (2 * N, N, 2), (5, 4, 2)])
def test_tokens_that_do_not_show_their_images(shape: tuple[int, ...]) -> None:
    assert by_image(torch.randn(shape), N) is None
    one = by_image(torch.ones(shape), 1)
    assert one is not None
    assert one.tolist() == [torch.ones(shape).sum()]


def test_a_balance_knows_what_had_stayed_at_each_layer() -> None:
    balance = Balance()
    balance.begin(2)
    balance.add("kept", torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    balance.reach("late", torch.device("cpu"))
    balance.absorb(torch.tensor([[5.0], [6.0]]), torch.tensor([[4.0, 0.5], [6.0, 0.0]]))
    balance.reach("early", torch.device("cpu"))
    assert list(balance.at_layer) == ["late", "early"]
    late, early = (balance.at_layer[name] for name in ("late", "early"))
    assert (late.kept.tolist(), late.absorbed.tolist()) == ([3, 7], [0, 0])
    assert (early.kept.tolist(), early.absorbed.tolist()) == ([3, 7], [0.5, 0])
    assert balance.divided
    balance.add("kept", torch.ones(5, 3))
    assert not balance.divided
    balance.begin(1)
    assert balance.divided
    assert balance.stayed_behind(torch.device("cpu")).kept.tolist() == [0]


def test_shares_of_what_is_alike_at_all_places_are_what_their_products_come_to() -> None:
    balance, whole = Balance(), Balance()
    for each in (balance, whole):
        each.begin(N)
    for share, own in [
        (torch.randn(N, 4, 3, 3), torch.randn(4, 1, 1)),
        (torch.randn(N, 2, 5, 5), torch.randn(2, 1, 1)),
        (torch.randn(N, 6), torch.randn(6)),
        (torch.randn(2 * N, 4, 3, 3), torch.randn(4, 1, 1)),  # windows
        (torch.randn(N, 5, 6), torch.randn(N, 5, 6)),
    ]:
        balance.absorb_shares(share, own)
        whole.add("absorbed", share * own)
    found, expected = (each.stayed_behind(torch.device("cpu")) for each in (balance, whole))
    torch.testing.assert_close(found.absorbed, expected.absorbed)


def test_amounts_of_several_devices_are_added_up() -> None:
    balance, meta = Balance(), torch.device("meta")
    balance.begin(2)
    balance.add("kept", torch.ones(2, 3, device=meta))
    balance.add("kept", torch.ones(2, 3))
    balance.absorb(torch.ones(2, 3), torch.zeros(2, 3))
    balance.reach("layer", meta)
    assert {amount.device for amount in balance.at_layer["layer"]} == {meta}
    assert {amount.shape for amount in balance.at_layer["layer"]} == {(2,)}


def test_amounts_of_one_device_are_added_up() -> None:
    balance = Balance()
    balance.begin(2)
    balance.add("kept", torch.ones(2, 3))
    balance.add("kept", torch.ones(2, 3))
    stayed = balance.stayed_behind(torch.device("cpu"))
    assert stayed.kept.tolist() == [6, 6]
    assert stayed.absorbed.tolist() == [0, 0]


def test_a_signal_of_which_nobody_wants_to_know_leaves_nothing() -> None:
    balance = Balance()
    balance.begin(N, is_kept=False)
    balance.reach("late", torch.device("cpu"))
    assert balance.at_layer == {}


def test_a_tensor_tells_its_signal() -> None:
    x, told = torch.ones(2, requires_grad=True), []
    y = x * 3
    on_the_way_back(y, told.append)
    (y[0] * 5).backward()
    assert torch.equal(torch.stack(told), torch.tensor([[5.0, 0.0]]))
