"""Results as one file come back bit by bit, whatever they hold, and the same one once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.metrics import Figure, MetricResult
from seewhy.metrics.result import Findings
from seewhy.metrics.results import packed, unpacked

PLAIN: dict[str, Any] = {
    "metric": "sparsity",
    "mean": 1 / 3,
    "low": math.nan,
    "high": -math.inf,
    "n": 2,
    "higher_is_better": True,
    "values": np.array([1 / 3, math.nan, 1e-300]),
    "status": ("ok", "empty", "ok"),
    "curves": (),
    "positions": (),
    "interval": "wilson",
    "settings": {"seed": 3, "shares": [0.1, 0.2], "method": None},
}
LINE = np.linspace(0, 1, 5)
CURVES: dict[str, Any] = {
    "metric": "deletion",
    "higher_is_better": False,
    "interval": "t",
    "curves": (LINE[:3] / 3, LINE[:1], LINE),
    "positions": (LINE[:3], LINE[:1], LINE),
}
FIGURES: dict[str, Any] = {
    "metric": "pixel_ap",
    "figures": {"oracle": Figure(0.1, 0.2, math.nan, (0.3, 0.4)), "rule": Figure(1 / 7)},
    "pooled_curve": (LINE, 1 - LINE / 3),
}


def same(found: object, other: object) -> bool:
    if isinstance(other, tuple):
        assert isinstance(found, tuple)
        return len(found) == len(other) and all(map(same, found, other))
    if isinstance(other, np.ndarray):
        return np.array_equal(np.asarray(found), other, equal_nan=True)
    return repr(found) == repr(other)


@pytest.mark.parametrize("others", [{}, CURVES, FIGURES, {**CURVES, **FIGURES}])
def test_a_result_comes_back_bit_by_bit(others: dict[str, Any], tmp_path: Path) -> None:
    one = MetricResult(Findings(**{**PLAIN, **others}))
    path = tmp_path / "results.npz"
    path.write_bytes(packed({"model": "net"}, [one, MetricResult(Findings(**PLAIN)), one]))
    about, found = unpacked(path)
    assert about == {"model": "net"}
    assert found[0] is found[2]
    assert len(found) == 3
    for back, given in zip(found, (one, MetricResult(Findings(**PLAIN))), strict=False):
        for name, value in given.found._asdict().items():
            mine = getattr(back.found, name)
            if name in ("figures", "settings"):
                assert repr(dict(mine)) == repr(dict(value))
            else:
                assert same(mine, value), name
