"""RISE against the paper's formula written out, truths that are known exactly, and repeated samples."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.transform import resize
from torch import Tensor, nn

from seewhy.engine.call import Call
from seewhy.engine.masking import GridMasks, Running, ScorerError, Zeros, image_seed, masked_scores
from seewhy.engine.masking.tuning import LiveMemory
from seewhy.engine.targets.classes import Logit, Probability, ScoreFunction
from seewhy.engine.targets.detection import DetectionBox, DetectionSimilarity
from seewhy.errors import InputError, TargetError
from seewhy.maps.attribution import Estimate
from seewhy.methods.rise.moments import Design, estimate
from seewhy.methods.rise.rise import rise, sure
from seewhy.methods.rise.sampling import draw_grids
from seewhy.methods.rise.state import RiseState
from tiny_models import Called, ModelState, Smooth, TinyCNN, pictures, randomised

PLAIN = Running(batch_size=64, memory_format="contiguous")
FORMS = ("paper", "ratio", "centred", "adjusted")
SCHEMES = ("iid", "antithetic", "sobol")

EXCHANGED = 3 * 64  # three batches say whether pictures depend on each other


def estimates(
    net: Any, x: Tensor, scores: ScoreFunction | list[ScoreFunction], **options: Any
) -> list[Estimate]:
    assert rise.run is not None
    several = scores if isinstance(scores, list) else [scores]
    options = {**rise.options, "cells": 3, "samples": 96, "running": PLAIN, **options}
    return list(rise.run(Call(net), x, several, layer=None, **options))


def drawn(
    scheme: Any, samples: int, *, cells: int = 3, size: tuple[int, int] = (12, 12), **how: Any
) -> GridMasks:
    return draw_grids(
        scheme, samples, **{"cells": cells, "p": 0.5, "blocks": 8, "size": size, "seed": 1, **how}
    )


def rendered(grids: GridMasks) -> Tensor:
    return grids.render(0, len(grids), torch.device("cpu"))


# --- the masks ---


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("p", [0.5, 0.2])
def test_every_mask_is_distributed_as_the_papers(scheme: str, p: float) -> None:
    n = 4096
    grids = drawn(scheme, n, cells=4, size=(18, 31), p=p)
    cells, shifts = grids.cells.double(), grids.shifts.double()
    assert float((cells.mean(0) - p).abs().max()) < 4 * (p * (1 - p) / n) ** 0.5
    for edge, pitch in enumerate((5, 8)):
        counts = torch.bincount(grids.shifts[:, edge].long(), minlength=pitch)
        assert len(counts) == pitch
        assert float((counts / n - 1 / pitch).abs().max()) < 5 * (1 / pitch / n) ** 0.5
    together = torch.cat([cells.flatten(1), shifts], 1).T
    if scheme == "antithetic":
        together = together[:, ::2]
    assert float((torch.corrcoef(together) - torch.eye(18)).abs().max()) < 0.1
    assert float((rendered(grids).double().mean(0) - p).abs().max()) < 0.05


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_first_masks_are_the_same_however_many_there_are(scheme: str) -> None:
    few, many = drawn(scheme, 37), drawn(scheme, 100)
    assert torch.equal(few.cells, many.cells[:37])
    assert torch.equal(few.shifts, many.shifts[:37])
    other = drawn(scheme, 37, seed=2)
    assert not torch.equal(few.cells, other.cells)
    nbytes = few.cells.nbytes + few.shifts.nbytes
    assert nbytes == 37 * (9 + 4)


def test_antithetic_masks_come_in_opposite_pairs() -> None:
    grids = drawn("antithetic", 21)
    assert torch.equal(grids.cells[1::2], ~grids.cells[:-1:2])
    assert torch.equal(grids.shifts[1::2], grids.shifts[:-1:2])


def test_sobol_blocks_are_separately_scrambled_nets() -> None:
    grids = drawn("sobol", 8 * 64)
    for block in range(8):
        own = grids.cells[block::8].flatten(1).double()
        assert torch.equal(own.mean(0), torch.full((9,), 0.5).double())  # 64 points halve exactly
    firsts = grids.cells[:8].flatten(1)
    assert len({tuple(row.tolist()) for row in firsts}) > 4


# --- the formula ---


def written_out(
    net: nn.Module, x: Tensor, grids: GridMasks, target: int, form: str
) -> np.ndarray[Any, Any]:
    """Petsiuk et al., section 3: masks by the authors' generator, one forward pass for each, in float64."""
    h, w = grids.size
    s = grids.cells.shape[1]
    pitch = [math.ceil(h / s), math.ceil(w / s)]
    weighted, masks, total = np.zeros((h, w)), np.zeros((h, w)), 0.0
    scores, shown = [], []
    for cells, (down, right) in zip(grids.cells, grids.shifts.tolist(), strict=True):
        up = resize(
            cells.double().numpy(),
            [(s + 1) * c for c in pitch],
            order=1,
            mode="reflect",
            anti_aliasing=False,
        )
        mask = up[down : down + h, right : right + w]
        with torch.no_grad():
            score = float(net(x * torch.tensor(mask))[0].softmax(0)[target])
        scores.append(score)
        shown.append(mask)
    for score, mask in zip(scores, shown, strict=True):
        weighted += (score - (np.mean(scores) if form == "centred" else 0)) * mask
        masks += mask
        total += 1
    return weighted / masks if form == "ratio" else weighted / (total * 0.5)


@pytest.mark.parametrize("form", ["paper", "ratio", "centred"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_maps_are_the_formula_written_out(form: Any, scheme: str) -> None:
    net, x = randomised(TinyCNN()).double(), pictures(1, (16, 11)).double()
    found = estimates(net, x, Probability(2), form=form, masks=scheme, samples=50, seed=5)[0]
    grids = drawn(scheme, 50, size=(16, 11), seed=image_seed(x[0], 5))
    expected = written_out(net, x, grids, 2, form)
    np.testing.assert_allclose(
        found.map[0].numpy(), expected, rtol=0, atol=1e-6 * np.abs(expected).max()
    )


@pytest.mark.parametrize(("scheme", "together"), [("iid", 1), ("sobol", 1), ("antithetic", 2)])
@pytest.mark.parametrize("form", ["paper", "ratio", "centred"])
def test_intervals_are_sums_written_out(scheme: str, together: int, form: Any) -> None:
    n, blocks = 150, 6  # 150 is no multiple of what goes together in turns: blocks differ in size
    grids = drawn(scheme, n, size=(4, 5), blocks=blocks)
    m = rendered(grids).double().flatten(1).numpy()
    f = m[:, 7] * 3 + np.random.default_rng(0).random(n)
    design = Design(0.5, blocks, together, independent=scheme == "iid")
    found = estimate(grids, torch.tensor(np.stack([-f, f], 1)), design, form)[1]
    if form == "centred":
        map_ = ((f - f.mean())[:, None] * m).mean(0) / 0.5
        pulls = (f - f.mean())[:, None] * (m - m.mean(0)) / 0.5
    elif form == "paper":
        map_, pulls = (f[:, None] * m).mean(0) / 0.5, f[:, None] * m / 0.5
    else:
        map_ = (f[:, None] * m).sum(0) / m.sum(0)
        pulls = (f[:, None] - map_) * m / m.mean(0)
    np.testing.assert_allclose(found.map.flatten(), map_, atol=1e-6)
    if scheme == "iid":
        half = stats.t.ppf(0.975, n - 1) * pulls.std(0, ddof=1) / np.sqrt(n)
    else:
        block = np.arange(n) // together % blocks
        own = np.stack([pulls[block == b].mean(0) for b in range(blocks)])
        share = np.array([(block == b).mean() for b in range(blocks)])[:, None]
        variance = (share**2 * (own - (share * own).sum(0)) ** 2).sum(0) * blocks / (blocks - 1)
        half = stats.t.ppf(0.975, blocks - 1) * np.sqrt(variance)
    np.testing.assert_allclose(found.interval.flatten(), half, rtol=1e-4)
    assert found.score_mean == pytest.approx(f.mean(), rel=1e-9)
    assert found.score_std == pytest.approx(f.std(ddof=1), rel=1e-9)


def test_the_adjusted_form_written_out() -> None:
    """Control variates: for each block a ridge regression on the other blocks, block by block and in float64."""
    n, blocks, size = 203, 5, (10, 13)
    grids = drawn("sobol", n, size=size, blocks=blocks)
    m = rendered(grids).double().flatten(1).numpy()
    f = np.exp(m[:, 30] + m[:, 100]) + np.random.default_rng(0).random(n)
    found = estimate(
        grids, torch.tensor(f[:, None]), Design(0.5, blocks, 1, independent=False), "adjusted"
    )[0]
    everything = rendered(every_mask(size)).double().flatten(1).numpy()
    rows, columns = (np.arange(edge) * 3 // edge for edge in size)
    tile = (rows[:, None] * 3 + columns).flatten()
    means = [
        np.stack([masks[:, tile == k].mean(1) for k in range(9)], 1) - 0.5
        for masks in (m, everything)
    ]
    together = means[1].T @ (everything - 0.5) / len(everything)
    block = np.arange(n) % blocks
    best, expected = math.inf, np.zeros(0)
    for ridge in (0.1, 1.0, 10.0, math.inf):
        left, map_ = 0.0, np.zeros(130)
        for b in range(blocks):
            x, y = means[0][block != b], f[block != b]
            about = x - x.mean(0)
            gram = about.T @ about
            beta = np.zeros(9)
            if ridge < math.inf:
                beta = np.linalg.solve(
                    gram + ridge * np.diag(gram).mean() * np.eye(9), about.T @ (y - y.mean())
                )
            rest = f[block == b] - y.mean() - (means[0][block == b] - x.mean(0)) @ beta
            left += (rest**2).sum()
            own = (rest[:, None] * (m[block == b] - 0.5)).mean(0) + beta @ together
            map_ += (block == b).mean() * own / 0.5
        if left < best:
            best, expected = left, map_
    np.testing.assert_allclose(found.map.flatten(), expected, atol=1e-6 * np.abs(expected).max())


def test_what_is_linear_in_the_tiles_is_not_sampled() -> None:
    """Where the score is a sum over tiles, a short sample has the true map but for its ridge."""
    size = (12, 12)
    whole = every_mask(size)
    truth_masks = rendered(whole).double()
    score = truth_masks[:, :4, 4:8].mean((1, 2))
    truth = ((score - score.mean())[:, None, None] * truth_masks).mean(0) / 0.5
    errors = {}
    for form in ("centred", "adjusted"):
        grids = drawn("iid", 200, size=size)
        f = rendered(grids).double()[:, :4, 4:8].mean((1, 2))
        found = estimate(grids, f[:, None], Design(0.5, 8, 1, independent=True), form)[0]  # type: ignore[arg-type]
        errors[form] = float((found.map - truth).square().sum() / truth.square().sum())
    assert errors["adjusted"] < errors["centred"] / 20


# --- planted truth ---


class Patch(nn.Module):
    """Looks at one patch alone: class 1 is its mean, class 0 never changes."""

    def __init__(self, rows: slice, columns: slice) -> None:
        super().__init__()
        self.place = (slice(None), slice(None), rows, columns)

    def forward(self, x: Tensor) -> Tensor:
        seen = x[self.place].mean((1, 2, 3))
        return torch.stack([0 * seen + 2, seen], 1)


@pytest.mark.parametrize(
    ("channels", "size", "patch"),
    [
        (3, (28, 28), (slice(4, 8), slice(16, 20))),
        (1, (30, 44), (slice(20, 26), slice(4, 10))),
        (2, (16, 40), (slice(4, 8), slice(30, 36))),
        (32, (21, 21), (slice(9, 12), slice(9, 12))),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_the_peak_is_on_the_one_patch_that_counts(
    channels: int, size: tuple[int, int], patch: tuple[slice, slice], form: str
) -> None:
    x = 1 + 0.1 * pictures(1, size, channels=channels).abs()
    estimate = estimates(Patch(*patch), x, Logit(1), form=form, samples=512, cells=7)[0]
    inside = torch.zeros(size, dtype=torch.bool)
    inside[patch] = True
    pitch = max(-(-edge // 7) for edge in size)
    peak = divmod(int(estimate.map[0].argmax()), size[1])
    rows, columns = (torch.nonzero(inside.any(edge)).flatten() for edge in (1, 0))
    assert rows[0] - pitch / 2 <= peak[0] <= rows[-1] + pitch / 2
    assert columns[0] - pitch / 2 <= peak[1] <= columns[-1] + pitch / 2
    assert bool(sure(estimate)[0][inside].all())
    assert float(estimate.map[0][inside].mean()) > float(estimate.map[0].mean()) + float(
        estimate.interval[0].mean()
    )


def test_a_linear_model_has_a_map_in_closed_form() -> None:
    """Of f = mean of x * M over a patch with x = 1, the centred map is the covariance of that mean with M, over p."""
    net = Patch(slice(4, 8), slice(0, 6))
    grids = every_mask((12, 12))
    masks = rendered(grids).double()
    patch = masks[:, 4:8, 0:6].mean((1, 2))
    truth = ((patch - patch.mean())[:, None, None] * masks).mean(0) / 0.5
    found = estimates(net, torch.ones(1, 3, 12, 12), Logit(1), samples=2048)[0]
    assert float((found.map[0] - truth).abs().max()) < 0.03 * float(truth.max())


def every_mask(size: tuple[int, int]) -> GridMasks:
    """All masks of 3 x 3 cells, each as likely as the others with p = 0.5."""
    pitch = [-(-edge // 3) for edge in size]
    cells = torch.tensor(list(itertools.product((False, True), repeat=9))).view(-1, 3, 3)
    shifts = torch.tensor(list(itertools.product(*map(range, pitch))))
    return GridMasks(cells.repeat_interleave(len(shifts), 0), shifts.repeat(len(cells), 1), size)


# --- intervals and stopping ---


@pytest.fixture(scope="module")
def known() -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """A network, a picture, and its true maps: the mean over all 8192 masks there are."""
    net, x = randomised(Smooth(), seed=3), 2 * pictures(1, 12)
    how: dict[str, Any] = {
        "baseline": Zeros(),
        "running": Running(batch_size=512, memory_format="contiguous"),
    }
    chunks = list(masked_scores(net, x, [every_mask((12, 12))], [Probability(1)], **how))
    f, m = (
        torch.cat(parts).double()
        for parts in ([c.scores[:, :1] for c in chunks], [c.masks for c in chunks])
    )
    f = f[:, :, None]
    truth = {"paper": (f * m).mean(0) / 0.5, "ratio": (f * m).sum(0) / m.sum(0)}
    centred = ((f - f.mean()) * m).mean(0) / 0.5
    return net, x, {**truth, "centred": centred, "adjusted": centred}


@pytest.mark.parametrize(
    ("scheme", "form", "precision"),
    [
        ("iid", "adjusted", None),
        ("sobol", "adjusted", None),
        ("antithetic", "adjusted", None),
        ("iid", "centred", None),
        ("sobol", "centred", None),
        ("iid", "ratio", None),
        ("sobol", "paper", None),
        ("iid", "centred", 0.1),
        ("sobol", "centred", 0.02),
        ("sobol", "adjusted", 0.01),
    ],
)
def test_intervals_hold_as_often_as_they_say(
    known: tuple[nn.Module, Tensor, dict[str, Tensor]],
    scheme: str,
    form: str,
    precision: float | None,
) -> None:
    net, x, truth = known
    covered, taken, wrong = [], [], 0
    for seed in range(48):
        options = {"masks": scheme, "form": form, "precision": precision, "seed": seed}
        found = estimates(net, x, Probability(1), samples=1024 if precision else 192, **options)[0]
        error = found.map[0] - truth[form].float()
        covered.append((error.abs() <= found.interval[0]).float().mean())
        taken.append(found.facts[0]["samples"])
        if found.facts[0]["stopped"] == "precision":
            apart, signal = error - error.mean(), truth[form] - truth[form].mean()
            wrong += float(apart.square().sum() / signal.square().sum()) > precision
    assert 0.90 <= float(torch.stack(covered).mean()) <= (0.995 if precision else 0.985)
    if precision:
        assert min(taken) < 1024
        assert set(taken) <= {256, 512, 1024}
        assert wrong <= 5  # of 48 in 20 of which 1 may be: 2.4, and what chance adds


def test_the_relative_error_is_the_one_there_is(
    known: tuple[nn.Module, Tensor, dict[str, Tensor]],
) -> None:
    net, x, truth = known
    said, true = [], []
    for seed in range(24):
        found = estimates(net, x, Probability(1), masks="iid", samples=256, seed=seed)[0]
        error, signal = found.map[0] - truth["centred"], truth["centred"] - truth["centred"].mean()
        error = error - error.mean()
        true.append(float(error.square().sum() / signal.square().sum()))
        said.append(found.facts[0]["relative_error"])
        assert found.facts[0]["relative_error_bound"] > said[-1]
    assert np.mean(said) == pytest.approx(np.mean(true), rel=0.3)


def test_each_image_stops_by_itself(known: tuple[nn.Module, Tensor, dict[str, Tensor]]) -> None:
    net, x, _ = known
    blank = torch.zeros_like(x)  # nothing changes its score: no precision is ever reached
    batch = estimates(net, torch.cat([blank, x]), Probability(1), precision=0.05, samples=600)[0]
    assert [facts["stopped"] for facts in batch.facts] == ["samples", "precision"]
    assert batch.facts[0]["samples"] == 600
    assert batch.facts[1]["samples"] in (256, 512)
    alone = estimates(net, x, Probability(1), precision=0.05, samples=600)[0]
    torch.testing.assert_close(batch.map[1], alone.map[0], rtol=1e-5, atol=1e-8)
    assert not batch.map[0].any()
    assert batch.facts[0]["relative_error"] is None
    assert batch.facts[0]["score_std"] == pytest.approx(0, abs=1e-6)


def test_facts(known: tuple[nn.Module, Tensor, dict[str, Tensor]]) -> None:
    net, x, _ = known
    facts = estimates(net, x, Logit(1), masks="iid", form="ratio", samples=40)[0].facts[0]
    names = [
        "samples",
        "stopped",
        "partial",
        "relative_error",
        "relative_error_bound",
        "score_mean",
        "score_std",
    ]
    assert list(facts) == [*names, "form", "masks"]
    assert facts["samples"] == 40
    assert facts["stopped"] == "samples"
    assert facts["partial"] is False
    assert (facts["form"], facts["masks"]) == ("ratio", "iid")


# --- the same answer in every way ---


@pytest.mark.parametrize("scheme", SCHEMES)
def test_maps_do_not_depend_on_batches_or_order(scheme: str) -> None:
    net, x = randomised(TinyCNN()), pictures(3, (12, 17))
    runs = []
    for size, order in ((1, [0, 1, 2]), (7, [2, 0, 1]), (64, [1, 2, 0])):
        running = Running(batch_size=size, memory_format="contiguous")
        target = Logit(tuple([1, 0, 4][i] for i in order))
        found = estimates(net, x[order], target, masks=scheme, running=running, samples=45)[0]
        back = [order.index(i) for i in range(3)]
        assert found.interval is not None
        runs.append((found.map[back], found.interval[back]))
    for run in runs[1:]:
        for one, other in zip(run, runs[0], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))
    alone = estimates(net, x[1:2], Logit(0), masks=scheme, samples=45)[0]
    torch.testing.assert_close(
        alone.map[0], runs[0][0][1], rtol=0, atol=1e-5 * float(runs[0][0].abs().max())
    )


def test_one_sample_answers_for_all_targets() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 12)
    passes: list[int] = []
    net.register_forward_hook(lambda module, args, value: passes.append(len(value)))
    both = estimates(net, x, [Logit(0), Probability((1, 3))])
    assert sum(passes) == 2 * 96 + EXCHANGED
    for found, score in zip(both, (Logit(0), Probability((1, 3))), strict=True):
        alone = estimates(net, x, score)[0]
        torch.testing.assert_close(
            found.map, alone.map, rtol=0, atol=1e-6 * float(alone.map.abs().max())
        )


def test_as_a_method() -> None:
    net, x = randomised(TinyCNN()), pictures(2, (12, 18))
    before = ModelState(net)
    with torch.inference_mode():
        map_ = rise(net, x, [1, 3], samples=64, cells=4)
    before.assert_unchanged()
    assert map_.shape == (2, 12, 18)
    assert map_.dtype == torch.float32
    assert not map_.is_inference()
    assert torch.equal(map_, rise(net, x, [1, 3], samples=64, cells=4))
    assert not torch.equal(map_, rise(net, x, [1, 3], samples=64, cells=4, seed=1))
    assert not torch.equal(
        map_, rise(net, x, [1, 3], samples=64, cells=4, baseline=["blur", "mean"])
    )


def test_a_black_box() -> None:
    def remote(pictures: Tensor) -> Any:
        return pictures.numpy()[:, :, 2:6, 2:6].mean((2, 3))

    x = pictures(1, 12)
    found = estimates(remote, x, Logit(1))[0]
    as_module = Called(lambda x: x[:, :, 2:6, 2:6].mean((2, 3)))
    torch.testing.assert_close(
        found.map, estimates(as_module, x, Logit(1))[0].map, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("channels", "size"), [(1, (3, 5)), (32, (3, 5)), (4, (1, 9)), (2, (40, 6))]
)
def test_small_and_odd_pictures(channels: int, size: tuple[int, int]) -> None:
    x = pictures(2, size, channels=channels)
    for scheme in SCHEMES:
        found = estimates(
            Called(lambda x: x.mean((2, 3))), x, Logit(0), masks=scheme, cells=7, samples=40
        )[0]
        assert found.map.shape == (2, *size)
        assert found.map.isfinite().all()
        assert found.interval is not None
        assert (found.interval >= 0).all()


def test_memory_does_not_grow_with_the_number_of_masks() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 32)
    peaks = []
    for samples in (64, 1024):
        with LiveMemory() as live:
            estimates(
                net,
                x,
                Logit(0),
                samples=samples,
                running=Running(batch_size=32, memory_format="contiguous"),
            )
        peaks.append(live.peak)
    assert peaks[1] - peaks[0] < 1024 * 51 * 4
    assert peaks[1] < 1.1 * peaks[0]


# --- stopping and going on ---


def test_an_interrupted_sample_goes_on_to_the_same_answer() -> None:
    net, x, state = randomised(TinyCNN()), pictures(2, 12), RiseState()
    whole = estimates(net, x, Logit(1), samples=150)[0]
    known: list[Estimate] = []

    def interrupt(done: int, total: int) -> None:
        assert total == 300
        known.extend(state.estimates())
        if done >= 170:
            raise KeyboardInterrupt

    running = Running(batch_size=20, memory_format="contiguous", progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        estimates(net, x, Logit(1), samples=150, state=state, running=running)
    assert [facts["samples"] for facts in known[-1].facts] == [150, 30]
    assert known[0].facts[0]["stopped"] == "running"
    assert known[0].map[1].isnan().all()
    torch.testing.assert_close(
        known[-1].map[0], whole.map[0], rtol=0, atol=1e-6 * float(whole.map.abs().max())
    )
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    state = RiseState.of_state_dict(torch.load(file))
    assert file.tell() < 10_000
    passes: list[int] = []
    net.register_forward_hook(lambda module, args, value: passes.append(len(value)))
    rest = estimates(net, x, Logit(1), samples=150, state=state)[0]
    assert sum(passes) == 120 + EXCHANGED + 3 * 56  # the last batch is another size
    for one, other in ((rest.map, whole.map), (rest.interval, whole.interval)):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))
    more = estimates(net, x, Logit(1), samples=400, state=state)[0]
    torch.testing.assert_close(
        more.map, estimates(net, x, Logit(1), samples=400)[0].map, rtol=1e-4, atol=1e-6
    )


def test_a_state_is_of_one_question() -> None:
    net, x, state = randomised(TinyCNN()), pictures(2, 12), RiseState()
    assert RiseState.of_state_dict(state.state_dict()).setting is None
    estimates(net, x, Logit(1), samples=20, state=state)
    for other in ({"seed": 3}, {"masks": "iid"}, {"cells": 4}, {"baseline": "blur"}):
        with pytest.raises(InputError, match="state was made with other"):
            estimates(net, x, Logit(1), samples=20, state=state, **other)
    with pytest.raises(InputError, match="state was made with other"):
        estimates(net, x.flip(0), Logit(1), samples=20, state=state)
    with pytest.raises(InputError, match="state was made with other"):
        estimates(net, x, [Logit(1), Logit(2)], samples=20, state=state)


# --- what goes wrong ---


class Failing(nn.Module):
    def __init__(self, pictures: int, how: str) -> None:
        super().__init__()
        self.left, self.how = pictures, how

    def forward(self, x: Tensor) -> Tensor:
        self.left -= len(x)
        out = x.mean((2, 3))
        if self.left >= 0:
            return out
        if self.how == "raises":
            raise OSError("connection lost")
        return out * float("nan") if self.how == "nan" else out[:1]


@pytest.mark.parametrize("how", ["raises", "nan", "shape"])
def test_what_is_known_when_the_scorer_fails_is_returned(how: str) -> None:
    x = pictures(3, 12)
    running = Running(batch_size=10, memory_format="contiguous")
    found = estimates(Failing(70 + 3 * 10, how), x, Logit(1), samples=50, running=running)[0]
    assert [facts["samples"] for facts in found.facts] == [50, 20, 0]
    assert [facts["partial"] for facts in found.facts] == [False, True, True]
    assert [facts["stopped"] for facts in found.facts] == ["samples", "error", "error"]
    assert ["failed" in facts for facts in found.facts] == [False, True, True]
    assert found.facts[1]["failed"].startswith("scoring stopped after 70 of 150 masked pictures")
    assert found.facts[1]["failed"].endswith("(the estimate so far is returned)")
    net = Called(lambda x: x.mean((2, 3)))
    for i, samples in ((0, 50), (1, 20)):
        expected = estimates(net, x[i : i + 1], Logit(1), samples=samples)[0].map[0]
        torch.testing.assert_close(found.map[i], expected, rtol=1e-5, atol=1e-7)
    assert found.map[2].isnan().all()
    with pytest.raises(ScorerError, match="stopped after 0 of 150"):
        estimates(Failing(0, how), x, Logit(1), samples=50, running=running)


def test_options_that_cannot_be_used() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 12)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"samples": 1}, "samples=1 is too few"),
        ({"cells": 0}, "cells=0"),
        ({"p": 1.0}, "p=1.0"),
        ({"masks": "halton"}, "masks='halton' is not known; use 'sobol', 'iid', 'antithetic'"),
        ({"masks": "sobol", "cells": 146}, "cells=146 is too many"),
        ({"form": "raw"}, "form='raw' is not known"),
        ({"precision": 0.0}, "precision=0.0 cannot be reached"),
        ({"blocks": 1}, "blocks=1: how far"),
        ({"baseline": "grey"}, "baseline='grey' is not known"),
    ]
    for options, said in wrong:
        with pytest.raises(InputError, match=said):
            rise(net, x, 1, **options)
    with pytest.raises(InputError, match="no interval"):
        sure(Estimate(torch.zeros(1, 2, 2)))


def test_where_it_is_sure() -> None:
    map_ = torch.tensor([[[4.0, -1.0], [1.0, 0.0]]])
    estimate = Estimate(map_, torch.full_like(map_, 0.5))
    assert sure(estimate).tolist() == [[[True, False], [False, False]]]
    assert sure(estimate, above="zero").tolist() == [[[True, False], [True, False]]]


# --- detectors ---


class Detector(nn.Module):
    """Two fixed boxes; the first is seen as class 1 by the brightness of its upper left corner."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        boxes = torch.tensor([[[0.0, 0, 12, 12], [12, 12, 24, 24]]]).expand(len(x), -1, -1)
        first, second = x[:, :, :6, :6].mean((1, 2, 3)), x[:, :, 16:20, 16:20].mean((1, 2, 3))
        return boxes, torch.stack(
            [torch.stack([0.2 * second, first], 1), torch.stack([second, 0 * first], 1)], 1
        )


def whole(output: Any) -> Any:
    return output


@pytest.mark.parametrize(
    "target", [DetectionBox((1, 1, 12, 12), 1), DetectionSimilarity((1, 1, 12, 12), 1)]
)
def test_rise_for_detectors(target: ScoreFunction) -> None:
    x = torch.ones(2, 3, 24, 24)
    map_ = rise(Detector(), x, target, samples=256, cells=4, output=whole)
    for one in map_:
        y, column = divmod(int(one.argmax()), 24)
        assert y < 8
        assert column < 8
        assert one[:6, :6].mean() > 3 * one[12:, 12:].abs().mean()


def test_similarity_of_detections_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 8 * torch.rand(2, 6, 2, generator=generator)
    boxes = torch.cat([corners, corners + 1 + 8 * torch.rand(2, 6, 2, generator=generator)], -1)
    scores, objectness = (
        torch.rand(2, 6, 4, generator=generator),
        torch.rand(2, 6, generator=generator),
    )
    box, wanted = (2.0, 1.0, 9.0, 8.0), torch.rand(4, generator=generator)
    expected = []
    for n in range(2):
        best = 0.0
        for j in range(6):
            x0, y0, x1, y1 = boxes[n, j].tolist()
            across, down = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
            shared = max(across, 0) * max(down, 0)
            iou = shared / ((x1 - x0) * (y1 - y0) + 49 - shared)
            cosine = float(wanted @ scores[n, j] / (wanted.norm() * scores[n, j].norm()))
            best = max(best, iou * cosine * float(objectness[n, j]))
        expected.append(best)
    score = DetectionSimilarity(box, wanted)
    packed = {"boxes": boxes, "scores": scores, "objectness": objectness}
    for output in ((boxes, scores, objectness), packed):
        assert score(output).tolist() == pytest.approx(expected, rel=1e-5)
    middles = torch.cat(
        [(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1
    )
    found = DetectionSimilarity(box, wanted, form="cxcywh")((middles, scores, objectness))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    with_highest = DetectionSimilarity(box, wanted)((boxes, scores, scores.amax(-1)))
    assert torch.equal(DetectionSimilarity(box, wanted)((boxes, scores)), with_highest)
    with pytest.raises(TargetError, match="DetectionSimilarity needs"):
        score(boxes)
    with pytest.raises(
        TargetError, match="target 4 does not fit the detector, which has 4 classes"
    ):
        DetectionSimilarity(box, 4)((boxes, scores))


def test_similarity_of_a_detectors_records() -> None:
    near, far = [0.0, 0.0, 10.0, 5.0], [20.0, 20.0, 30.0, 30.0]
    records = [
        {
            "boxes": torch.tensor([near, near, far]),
            "labels": torch.tensor([3, 1, 3]),
            "scores": torch.tensor([0.5, 0.9, 1]),
        },
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.long),
            "scores": torch.zeros(0),
        },
    ]
    assert DetectionSimilarity((0, 0, 10, 10), 3)(records).tolist() == pytest.approx([0.25, 0.0])
    mixed = DetectionSimilarity((0, 0, 10, 10), torch.tensor([0, 0.8, 0, 0.6]))
    assert mixed(records).tolist() == pytest.approx([0.5 * 0.8 * 0.9, 0.0])
