"""Evaluations under way: when what there is so far is handed over."""

from __future__ import annotations

import time

import pytest

from seewhy.metrics.evaluation import Evaluation, Parts

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
