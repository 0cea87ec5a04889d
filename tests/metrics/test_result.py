"""A result is a number to programs that log numbers, and a record to those that ask."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from seewhy.errors import InputError
from seewhy.metrics import Complexity, Deletion, MetricResult, PointingGame, Sparsity
from tiny_models import TinyCNN, pictures, randomised

_MAPS = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])


def _complexity() -> MetricResult:
    metric = Complexity()
    metric.update(_MAPS)
    return metric.compute()


def test_a_result_is_the_number_with_all_that_is_behind_it() -> None:
    result = _complexity()
    assert isinstance(result, Tensor)
    assert float(result) == result.mean == pytest.approx(math.log(2) / 2)
    assert result.item() == pytest.approx(result.mean, rel=1e-6)
    assert result.values.tolist() == pytest.approx([0.0, math.log(2)], abs=1e-6)
    assert (result.n, result.metric, result.status) == (2, "complexity", ("ok", "ok"))
    assert result.low < result.mean < result.high
    assert type(result + 1) is Tensor
    assert result.detach().ndim == 0
    assert repr(result).startswith("<MetricResult complexity 0.3466 (")
    for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert isinstance(again, MetricResult)
        assert again.mean == result.mean
        assert again.status == result.status
    with pytest.raises(AttributeError):
        _ = result.nothing_of_the_kind


def test_a_metric_can_be_copied_and_moved_after_its_result() -> None:
    metric = Complexity()
    metric.update(_MAPS)
    first = metric.compute()
    assert copy.deepcopy(metric).compute().mean == first.mean
    assert metric.to("cpu").compute().n == 2
    metric.update(_MAPS[:1])
    assert metric.compute().n == 3


def test_collections_of_torchmetrics_take_metrics() -> None:
    metrics = MetricCollection({"complexity": Complexity(), "sparsity": Sparsity()}, prefix="maps/")
    metrics.update(_MAPS)
    found = metrics.compute()
    assert set(found) == {"maps/complexity", "maps/sparsity"}
    assert float(found["maps/complexity"]) == _complexity().mean
    assert found["maps/sparsity"].n == 2
    forward = Complexity()
    assert float(forward(_MAPS)) == _complexity().mean


def test_lightning_logs_metrics(tmp_path_factory: pytest.TempPathFactory) -> None:
    lightning = pytest.importorskip("lightning")
    net, x = randomised(TinyCNN()), pictures(2)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net, self.metric = net, Deletion(step=400)
            self.weight = nn.Parameter(torch.zeros(1))

        def validation_step(self, batch: Tensor, _: int) -> None:
            self.metric.update(torch.arange(2 * 32 * 32.0).view(2, 32, 32), self.net, x, 1)
            self.log("deletion", self.metric, on_step=False, on_epoch=True, batch_size=2)

        def on_validation_epoch_end(self) -> None:
            self.log("again", self.metric.compute())

    trainer = lightning.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path_factory.mktemp("lightning"),
    )
    (said,) = trainer.validate(
        Module(), torch.utils.data.DataLoader(torch.zeros(1, 1)), verbose=False
    )
    metric = Deletion(step=400)
    metric.update(torch.arange(2 * 32 * 32.0).view(2, 32, 32), net, x, 1)
    assert said["deletion"] == said["again"] == pytest.approx(float(metric.compute()), rel=1e-5)


def _hit(tolerance: float | str, away: int, size: tuple[int, int] = (100, 200)) -> float:
    """Whether a peak so many pixels to the right of an object is a hit."""
    field, mask = torch.zeros(1, *size), torch.zeros(size, dtype=torch.bool)
    mask[50, :10] = True
    field[0, 50, 9 + away] = 1
    metric = PointingGame(tolerance=tolerance)
    metric.update(field, [mask])
    return float(metric.compute())


def test_the_tolerance_of_the_pointing_game() -> None:
    assert [_hit(15, away) for away in (14, 15)] == [1, 0]  # as published
    assert [_hit(0, away) for away in (0, 1)] == [1, 0]  # inside
    assert [_hit("7%", away) for away in (6, 7)] == [1, 0]  # of 100
    assert [_hit("7 %", away, (64, 64)) for away in (4, 5)] == [1, 0]  # 4.48 pixels
    assert PointingGame().settings["tolerance"] == 15
    for wrong in (-1, "-1%", "far", math.nan, math.inf):
        with pytest.raises(InputError, match=r"is no distance; give pixels|nan is not a number"):
            PointingGame(tolerance=wrong)
