"""What an evaluation shows of its rows, and when it is handed over while it goes on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.metrics import MetricResult, evaluation
from seewhy.metrics.evaluation import Evaluation, Parts, Row
from seewhy.metrics.result import Findings
from seewhy.render.curves import Panel


def result(metric: str, mean: float, **told: Any) -> MetricResult:
    curve = np.array([mean, 1.0])
    findings: dict[str, Any] = {
        "metric": metric,
        "mean": mean,
        "low": mean - 1,
        "high": mean + 1,
        "n": 1,
        "higher_is_better": metric != "deletion",
        "values": np.array([mean]),
        "status": ("ok",),
        "curves": (curve,),
        "positions": (np.array([0.0, 1.0]),),
        "interval": "t",
        "settings": {"output": "probability"},
    }
    return MetricResult(Findings(**{**findings, **told}))


def panels_of(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> tuple[list[Panel], str]:
    drawn: list[Any] = []
    monkeypatch.setattr(
        evaluation, "curves_picture", lambda panels, title, remarks: drawn.extend([panels, title])
    )
    Evaluation("net", ("a", "b"), tuple(rows)).picture()
    return drawn[0], drawn[1]


def test_a_panel_has_the_lines_of_methods_and_those_of_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance: Any = {"random": result("deletion", 0.5), "edges": result("deletion", 0.75)}
    rows = [
        Row("cam", "layer3", "top1", "deletion", result("deletion", 0.1), chance),
        Row("cam", "layer4", "top1", "deletion", result("deletion", 0.2), chance),
        Row("saliency", "conv", "top1", "deletion", result("deletion", 0.3), chance),
    ]
    (panel,), title = panels_of(rows, monkeypatch)
    assert title == "net, 2 photos"
    assert (panel.title, panel.note) == ("Deletion", "lower is better")
    assert panel.axes == ("share of pixels deleted", "probability")
    lines = [(line.label, line.mean, line.chance) for line in panel.scored]
    assert lines == [
        ("cam layer3", 0.1, False),
        ("cam layer4", 0.2, False),
        ("saliency", 0.3, False),
        ("random", 0.5, True),
        ("edges", 0.75, True),
    ]
    for line in panel.scored:
        assert (line.low, line.high) == (line.mean - 1, line.mean + 1)
        assert (line.at.tolist(), line.curve.tolist()) == ([0, 1], [line.mean, 1])


def test_panels_say_the_target_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Row("cam", None, target, metric, result(metric, 0.5, settings={}), {})
        for metric in ("insertion", "sparsity")
        for target in ("top1", "top2")
    ]
    rows.append(Row("cam", None, "top1", "mine", result("sparsity", 0.5), {}))
    panels, _ = panels_of(rows, monkeypatch)
    assert [panel.title for panel in panels] == [
        "Insertion, top1",
        "Insertion, top2",
        "Sparsity, top1",
        "Sparsity, top2",
        "mine, top1",
    ]
    assert {panel.note for panel in panels} == {"higher is better"}
    assert panels[0].axes == ("share of pixels inserted", "score")
    assert [len(panel.scored) for panel in panels] == [1] * 5


def test_an_evaluation_names_six_rows_and_what_is_said_of_maps() -> None:
    def row(number: int, *remarks: str) -> Row:
        return Row(f"m{number}", None, "top1", "sparsity", result("sparsity", 0.25), {}, remarks)

    six = Evaluation("net", ("a",), tuple(map(row, range(6))))
    assert "sparsity of m5 0.25>" in repr(six)
    assert "rows" not in repr(six)
    seven = Evaluation("net", ("a", "b"), tuple(map(row, range(7))), finished=False)
    assert "sparsity of m5 0.25, ... (7 rows: .table())>" in repr(seven)
    assert "m6" not in repr(seven)
    assert "of 2 images so far by net" in repr(seven)
    said = Evaluation("net", ("a",), (row(0, "one", "two", "three"), row(1, "one"), row(2)))
    assert said.remarks == ("m0: one (something is said of 2 more maps)", "m1: one")


def test_what_has_no_number_is_none_in_a_table() -> None:
    left = result(
        "deletion", math.nan, low=math.nan, high=math.nan, n=0, values=np.array([math.nan] * 2),
        status=("empty", "non_finite"),
    )  # fmt: skip
    chance: Any = {"random": result("deletion", 0.5), "edges": left}
    (cells,) = Evaluation("net", ("a",), (Row("cam", None, "t", "mine", left, chance),)).table()
    assert cells == {
        "method": "cam",
        "layer": "",
        "target": "t",
        "metric": "mine",
        "mean": None,
        "low": None,
        "high": None,
        "n": 0,
        "left_out": 2,
        "higher_is_better": False,
        "chance_random": 0.5,
        "chance_edges": None,
        "by_chance": None,
    }


SO_FAR = Evaluation("net", ("a",), (), finished=False)


@pytest.mark.parametrize(
    ("taken", "times"),
    [
        (0.0, [30, 60, 90]),
        (1.0, [30, 61, 92]),  # half a minute after one that was handed over
        (5.0, [30, 135]),  # twenty times what it took
    ],
)
def test_parts_are_handed_over_every_half_minute_or_less_often(
    taken: float, times: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, kept = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def keep(part: Evaluation) -> None:
        assert part is SO_FAR
        kept.append(now[0] - 1000)
        now[0] += taken

    parts = Parts(keep)
    for second in range(140 if taken == 5 else 100):
        now[0] = max(now[0], 1000.0 + second)
        parts.offer(lambda: SO_FAR)
    assert kept == times
    nobody = Parts(None, 0.0)
    nobody.offer(lambda: pytest.fail("nobody asked"))


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_hands_over_what_there_is(error: type[BaseException], is_there: bool) -> None:
    kept: list[Evaluation] = []
    for keep in (kept.append, None):
        parts = Parts(keep)
        with pytest.raises(error), parts.also_when_interrupted(lambda: SO_FAR, lambda: is_there):
            raise error
    assert kept == ([SO_FAR] if error is KeyboardInterrupt and is_there else [])


def test_an_evaluation_is_finished_unless_it_says_otherwise(tmp_path: Path) -> None:
    row = Row("rise", None, "top1", "insertion", result("insertion", 0.5), {})
    found = Evaluation("net", ("a",), (row,))
    assert found.finished
    with pytest.raises(TypeError):
        Evaluation("net", ("a",), (row,), False)
    found.save(tmp_path)
    lines = (tmp_path / "evaluation.csv").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("method,")
