"""What people call layers: stages by runs of one grid on the trunk, layers where there is one grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.flow import find_flow
from seewhy.engine.layers import LayerRecord
from seewhy.engine.layout import Layout
from seewhy.engine.stages import stages_of, title_of_layers
from tiny_models import TinyCNN, TinyResNet, pictures, randomised, tiny_vit


def record(
    name: str,
    side: int | tuple[int, ...],
    *,
    trunk: bool = True,
    pools: bool = False,
    maker: str = "",
) -> LayerRecord:
    grid = (side, side) if isinstance(side, int) else side
    layout = Layout("channels_first", grid) if grid[0] else None
    shape = (1, 4, *grid)
    return LayerRecord(name, maker or name, "Conv2d", shape, layout, trunk, True, pools, False)


def titles(records: list[LayerRecord]) -> list[str]:
    stages = stages_of(records)
    return [stages[r.name].title for r in records if r.layout]


def test_a_stage_is_a_run_of_one_grid() -> None:
    records = [record("a", 32), record("b", 32), record("c", 16), record("d", 8), record("e", 8)]
    stage = ["stage 1 of 3, 32 x 32"] * 2 + ["stage 2 of 3, 16 x 16"] + ["last stage, 8 x 8"] * 2
    assert titles(records) == stage


def test_a_grid_that_comes_back_is_another_stage() -> None:
    down_and_up = [record(name, side) for name, side in zip("abc", (16, 8, 16), strict=True)]
    assert titles(down_and_up) == [
        "stage 1 of 3, 16 x 16",
        "stage 2 of 3, 8 x 8",
        "last stage, 16 x 16",
    ]


def test_a_layer_on_a_branch_is_of_the_stage_that_it_leads_to() -> None:
    records = [
        record("stem", 16),
        record("block.conv1", 16, trunk=False),
        record("block.conv2", 8, trunk=False),
        record("block.shortcut", 8, trunk=False),
        record("block", 8),
        record("aside", 8, trunk=False),
        record("odd", 5, trunk=False),
    ]
    last = ["last stage, 8 x 8"] * 4
    assert titles(records) == ["stage 1 of 2, 16 x 16"] * 2 + last + ["5 x 5"]


def test_what_only_pools_is_no_stage() -> None:
    records = [
        record("a", 8),
        record("pool", 4, pools=True),
        record("b", 4),
        record("end", 2, pools=True),
    ]
    assert titles(records) == [
        "stage 1 of 2, 8 x 8",
        "last stage, 4 x 4",
        "last stage, 4 x 4",
        "2 x 2",
    ]


def test_a_volume_says_its_depth() -> None:
    records = [record("a", (4, 8, 8)), record("b", (2, 4, 4))]
    assert titles(records) == ["stage 1 of 2, 4 x 8 x 8", "last stage, 2 x 4 x 4"]


def test_without_a_trunk_all_pictures_are_looked_at() -> None:
    records = [record("a", 8, trunk=False), record("b", 4, trunk=False)]
    assert titles(records) == ["stage 1 of 2, 8 x 8", "last stage, 4 x 4"]


def test_one_grid_is_counted_by_blocks_under_whatever_name_the_last_has() -> None:
    """As in transformers: the addition is made in a part of the block, and the encoder returns the last block's."""
    records = [record("net.embed", 14)]
    for i in range(3):
        block = f"net.layer.{i}"
        records.append(record(f"{block}.norm", 14, trunk=False))
        last = i == 2
        records.append(record("net" if last else block, 14, maker=f"{block}.out"))
        records.append(record(f"{block}.out.dense", 14, trunk=False))
    records.append(record("norm", 14))
    found = stages_of(records)
    assert found["net.embed"].title == "before layer 1 of 3, 14 x 14"
    assert [found[f"net.layer.{i}.norm"].place for i in range(3)] == [
        f"layer {i} of 3" for i in (1, 2, 3)
    ]
    assert found["net"].place == "layer 3 of 3"
    assert found["norm"].place == "after layer 3 of 3"
    assert title_of_layers(found, "net.layer.2") == "layer 3 of 3, 14 x 14"  # as its user calls it
    assert title_of_layers(found, "net.layer.0") == "layer 1 of 3, 14 x 14"


def test_one_grid_without_blocks_is_counted_by_layers() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    flow = find_flow(randomised(net), pictures(1, 16))
    assert flow.title(flow.default) == "layer 4 of 4, 16 x 16"
    assert flow.title("0") == "layer 1 of 4, 16 x 16"


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (TinyCNN(), ["stage 1 of 2, 32 x 32", "last stage, 8 x 8"]),
        (TinyResNet(), ["stage 1 of 2, 16 x 16", "last stage, 8 x 8"]),
        (tiny_vit(), ["layer 3 of 3, 4 x 4"]),
    ],
)
def test_layers_that_are_chosen_in_networks(net: nn.Module, expected: list[str]) -> None:
    flow = find_flow(net.eval(), pictures(1, 32))
    assert [flow.title(name) for name in flow.chosen] == expected


@pytest.mark.parametrize(
    ("label", "title"),
    [
        ("a", "stage 1 of 3, 32 x 32"),
        ("a + c", "stages 1 + 2 of 3, 32 x 32 + 16 x 16"),
        ("a + 1 more + e", "stages 1 to 3 of 3, 32 x 32 to 8 x 8"),
        ("d + 7 more + e", "last stage, 8 x 8"),
        ("a + odd", "stage 1 of 3, 32 x 32 + 5 x 5"),
        ("fc", None),
        ("nobody", None),
    ],
)
def test_several_layers_have_one_title(label: str, title: str | None) -> None:
    records = [
        record("a", 32),
        record("c", 16),
        record("odd", 5, trunk=False),
        record("d", 8),
        record("e", 8),
    ]
    assert title_of_layers(stages_of([*records, record("fc", 0)]), label) == title


def test_a_table_of_layers_says_the_stage() -> None:
    rows = find_flow(TinyCNN().eval(), pictures(1, 32)).table(every=True)
    assert [(row["layer"], row["stage"], row["grid"]) for row in rows if row["chosen"]] == [
        ("relu1", "stage 1 of 2", "32x32"),
        ("relu2", "last stage", "8x8"),
    ]
    assert rows[-1]["stage"] == ""


def test_calls_of_one_module_stand_where_they_were_called() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.max_pool2d(self.conv(x).relu(), 2)
            return self.head(self.conv(x).relu().mean((2, 3)))

    torch.manual_seed(0)
    flow = find_flow(Twice(), pictures(1, 16))
    found = {r.name: flow.title(r.name) for r in flow if r.layout}
    assert sorted(filter(None, found.values())) == ["last stage, 8 x 8", "stage 1 of 2, 16 x 16"]
