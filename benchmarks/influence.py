"""Influence: the linear datamodelling score of every solver on a small CNN of digits, and time and memory beside peers.

`lds`: a CNN of 666 weights is trained on random halves of 600 digits, `--subsets` halves with `--seeds` trainings each,
all in one vectorised run; a solver's LDS is Spearman's correlation of what it predicts of a half with what the models
trained on it say, with a bootstrap interval over tests and halves. A training starts from the same weights for every
half, and the full models from those too: other starts add noise that no estimate can predict. Targets are
log(p / (1 - p)) of the true class. One column is of one model and the trainings from its start, the other the mean over
the `--seeds` models and trainings.

`speed`: the exact last layer of digits beside its own gradients; EK-FAC beside kronfluence in turn, each run in a
process of its own, medians. Memory is the peak above what the process held before the fit, libraries imported since
included.

    python benchmarks/influence.py [lds|speed] [--subsets N] [--seeds N] [--solver NAME]... [--threads N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from seewhy.influence.answers.trust import linear_datamodeling_score, random_subsets, spearman
from seewhy.influence.gradients.per_example import example_gradients
from seewhy.influence.problem import Problem
from seewhy.influence.solvers.catalog import find_solver
from seewhy.influence.solvers.trak import margin

TRAIN, TESTS, L2, BATCH, EPOCHS, RATE = 600, 100, 1e-3, 50, 60, 0.1
KEPT_EPOCHS = (10, 20, 30, 45, 60)  # of which TracIn has checkpoints

# the curvature's own solvers have one damping, a hundredth of a typical example's curvature; others their default
SOLVERS: dict[str, dict[str, Any]] = {
    "hessian": {"curvature": "gauss_newton", "damping": 1e-2},
    "arnoldi": {"curvature": "gauss_newton", "damping": 1e-2},
    "ekfac": {},
    "trak": {"dim": 512},
    "last_layer": {"damping": 1e-2},
    "representer": {},
    "tracin": {},
    "gradient_dot": {},
    "embedding": {},
    "loss": {},
    "random": {},
    "conjugate_gradient": {"curvature": "gauss_newton", "damping": 1e-2, "tolerance": 0.05},
    "lissa": {"curvature": "gauss_newton", "damping": 1e-2, "tolerance": 0.2, "depth": 60},
}
SLOW = (
    "conjugate_gradient",
    "lissa",
    "tracin",
)  # of one model: the first two are "hessian" by other means


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    parts = (
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
    )
    return nn.Sequential(*parts, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 10)).eval()


def data() -> tuple[Tensor, Tensor]:
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    return (torch.tensor(found.images)[:, None].float() / 16)[order], torch.tensor(found.target)[
        order
    ]


def train(
    images: Tensor, labels: Tensor, kept: Tensor, seeds: list[int]
) -> list[tuple[float, dict[str, Tensor]]]:
    """Trains a model for each row of `kept` (M, n) bool, by SGD with momentum and cosine learning rate, all at once.

    Every model takes as many steps, over its own examples in its own order. Returns (learning rate, weights (M, ...))
    of the checkpoints.
    """
    base = network(0)
    weights, _ = stack_module_state([network(seed) for seed in seeds])
    weights = {name: w.detach() for name, w in weights.items()}
    speed = {name: torch.zeros_like(w) for name, w in weights.items()}
    size = int(kept[0].sum())
    own = torch.stack([row.nonzero()[:, 0] for row in kept])  # (M, size)
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]

    def loss(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        ridge = sum(p.square().sum() for p in w.values())
        return F.cross_entropy(functional_call(base, w, (x,)), y) + L2 / 2 * ridge

    step = vmap(grad(loss))
    steps, done, found = EPOCHS * (size // BATCH), 0, []
    for epoch in range(1, EPOCHS + 1):
        mixed = torch.stack(
            [row[torch.randperm(size, generator=g)] for row, g in zip(own, orders, strict=True)]
        )
        for at in mixed.split(BATCH, 1)[: size // BATCH]:
            rate = RATE * (1 + torch.cos(torch.tensor(torch.pi * done / steps))) / 2
            gradients = step(weights, images[at], labels[at])
            for name, g in gradients.items():
                speed[name] = 0.9 * speed[name] + g
                weights[name] = weights[name] - rate * speed[name]
            done += 1
        if epoch in KEPT_EPOCHS:
            found.append((max(float(rate), 1e-4), {name: w.clone() for name, w in weights.items()}))
    return found


def model(weights: dict[str, Tensor], i: int) -> nn.Module:
    net = network(0)
    net.load_state_dict({name: w[i] for name, w in weights.items()})
    return net


def influences(name: str, problem: Problem, train_data: Any, tests: Any) -> Tensor:
    solver = find_solver(name, **SOLVERS[name])
    solver.fit(
        problem, lambda: list(zip(train_data[0].split(100), train_data[1].split(100), strict=True))
    )
    return solver.dot(
        solver.test_rows(problem, tests[0], lambda o: margin(o, tests[1])),
        solver.train_rows(problem, *train_data),
    )


def lds(subsets: int, seeds: int, names: list[str]) -> None:
    images, labels = data()
    tests = images[TRAIN : TRAIN + TESTS], labels[TRAIN : TRAIN + TESTS]
    images, labels = images[:TRAIN], labels[:TRAIN]
    start = time.perf_counter()
    halves = random_subsets(TRAIN, subsets, seed=0)
    base = network(0)
    measured = torch.zeros(seeds, subsets, TESTS)
    for s in range(seeds):
        _, weights = train(images, labels, halves, [s] * subsets)[-1]
        outputs = vmap(lambda w: functional_call(base, w, (tests[0],)))(weights)
        measured[s] = torch.stack([-margin(o, tests[1]) for o in outputs])
    full = train(images, labels, torch.ones(seeds, TRAIN, dtype=torch.bool), list(range(seeds)))
    nets = [model(full[-1][1], i) for i in range(seeds)]
    right = statistics.mean(
        float((net(tests[0]).argmax(1) == tests[1]).float().mean()) for net in nets
    )
    took = time.perf_counter() - start
    print(
        f"{subsets} halves x {seeds} trainings and {seeds} models: {took:.0f} s, accuracy {right:.3f}"
    )
    if seeds > 1:
        print(
            f"correlation of one training of a half with the mean of the others: {repeated(measured):.3f}"
        )
    print(f"{'solver':<20} {'one model':>22} {'all models':>22} {'seconds for one':>16}")
    for name in names:
        each, seconds = [], 0.0
        for i, net in enumerate(nets[: 1 if name in SLOW else seeds]):
            rates = tuple(rate for rate, _ in full)
            points = tuple(model(weights, i) for _, weights in full)
            along = name == "tracin"
            problem = Problem(
                modules=points if along else (net,),
                count=TRAIN,
                l2=L2,
                learning_rates=rates if along else None,
            )
            begin = time.perf_counter()
            each.append(influences(name, problem, (images, labels), tests))
            seconds += time.perf_counter() - begin
        several = torch.stack(each).mean(0)
        if name == "trak":
            several = influences(
                name, Problem(modules=tuple(nets), count=TRAIN, l2=L2), (images, labels), tests
            )
        pairs = ((each[0], measured[0]), (several, measured.mean(0)))
        scores = [
            str(linear_datamodeling_score(found, halves, quantities)) for found, quantities in pairs
        ]
        print(
            f"{name:<20} {scores[0]:>22} {scores[1] if len(each) > 1 else '-':>22} {seconds / len(each):>16.2f}",
            flush=True,
        )


def repeated(measured: Tensor) -> float:
    """How far one training of each half predicts the others, (seeds, S, T): what noise leaves to predict."""
    others = measured.sum(0) - measured[0]
    return float(spearman(measured[0], others).mean())


def timed(run: Callable[[], Any], rounds: int) -> float:
    """The median of the seconds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def last_layer(rounds: int = 7) -> None:
    found = load_digits()
    images, labels = torch.tensor(found.images)[:, None] / 16, torch.tensor(found.target)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(net(images[:1400]), labels[:1400])
        value = value + 0.005 * sum(p.square().sum() for p in net.parameters())
        value.backward()
        return value

    optimiser.step(closure)
    problem = Problem(modules=(net,), count=1400, l2=0.01)

    def scores() -> Tensor:
        solver = find_solver("last_layer")
        solver.fit(problem, lambda: [(images[:1400], labels[:1400])])
        return solver.dot(
            solver.test_rows(problem, images[1400:], labels[1400:]),
            solver.train_rows(problem, images[:1400], labels[:1400]),
        )

    weights = {name: p.detach() for name, p in net.named_parameters()}
    one = grad(lambda w, x, y: F.cross_entropy(functional_call(net, w, (x[None],)), y[None]))
    by_vmap = timed(lambda: vmap(one, in_dims=(None, 0, 0))(weights, images, labels), rounds)

    def one_by_one() -> None:
        for i in range(0, 1797, 10):
            one(weights, images[i], labels[i])

    loop = 10 * timed(one_by_one, 3)
    ours = timed(lambda: example_gradients(problem, images, labels), rounds)
    whole = timed(scores, rounds)
    print(f"exact last layer of digits, fit and 397 x 1400 scores: {whole:.3f} s")
    for title, seconds in (
        ("one by one", loop),
        ("by vmap", by_vmap),
        ("as seewhy takes them", ours),
    ):
        print(
            f"  gradients of 1797 examples {title:<22} {seconds:.3f} s, ratio {whole / seconds:.2f}"
        )


def larger() -> tuple[nn.Module, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """A CNN of 390,000 weights, and pictures of 32 x 32 for it."""
    torch.manual_seed(0)
    net: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        net += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    whole = nn.Sequential(
        *net, nn.Flatten(), nn.Linear(2048, 128), nn.ReLU(), nn.Linear(128, 10)
    ).eval()
    images, labels = torch.randn(1024, 3, 32, 32), torch.randint(10, (1024,))
    return whole, images[:960], labels[:960], (images[960:], labels[960:])


def ekfac_seewhy(send: Any) -> None:
    net, images, labels, tests = larger()
    base = held()
    start = time.perf_counter()
    problem = Problem(modules=(net,), count=len(images))
    solver = find_solver("ekfac", fisher="empirical", damping=1e-3)

    def batches() -> list[tuple[Tensor, Tensor]]:
        return list(zip(images.split(64), labels.split(64), strict=True))

    solver.fit(problem, batches)
    fitted = time.perf_counter()
    rows = solver.test_rows(problem, *tests)
    found = torch.cat(
        [solver.dot(rows, solver.train_rows(problem, *batch)) for batch in batches()], 1
    )
    report(send, base, start, fitted, found * len(images))


def ekfac_kronfluence(send: Any) -> None:
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from torch.utils.data import TensorDataset

    class Classification(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    net, images, labels, tests = larger()
    net = prepare_model(net, Classification())
    base = held()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        analyzer = Analyzer(
            "net", net, Classification(), cpu=True, output_dir=folder, disable_tqdm=True
        )
        options = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
        analyzer.fit_all_factors(
            "factors", TensorDataset(images, labels), per_device_batch_size=64, factor_args=options
        )
        fitted = time.perf_counter()
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=TensorDataset(*tests),
            train_dataset=TensorDataset(images, labels),
            per_device_query_batch_size=64,
            per_device_train_batch_size=64,
            score_args=ScoreArguments(damping_factor=1e-3),
        )
        found = analyzer.load_pairwise_scores("scores")["all_modules"]
        report(send, base, start, fitted, found)


def held() -> float:
    """MB of this process, at most so far; getrusage would begin with what its parent held."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def report(send: Any, base: float, start: float, fitted: float, found: Tensor) -> None:
    end = time.perf_counter()
    send.send((fitted - start, end - fitted, held() - base, found.tolist()))


def apart(run: Callable[[Any], None], threads: int) -> tuple[float, float, float, Tensor]:
    """Runs in a process of its own: seconds of fit and score, MB above the start, scores."""
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=alone, args=(run, send, threads))
    process.start()
    send.close()  # so that a side that fails is an error here
    fit, score, peak, found = receive.recv()
    process.join()
    return fit, score, peak, torch.tensor(found)


def alone(run: Callable[[Any], None], send: Any, threads: int) -> None:
    warnings.simplefilter(
        "ignore"
    )  # of a net that is not trained, and of what the peer's libraries have deprecated
    torch.set_num_threads(threads)
    run(send)


def speed(threads: int, rounds: int = 3) -> None:
    last_layer()
    print(
        "EK-FAC, 390,000 weights, 960 training and 64 test pictures of 32 x 32: fit, scores, peak memory"
    )
    sides = {"seewhy": ekfac_seewhy, "kronfluence": ekfac_kronfluence}
    rows = [
        {name: apart(run, threads) for name, run in sides.items()} for _ in range(rounds)
    ]  # in turn
    medians = {
        name: [statistics.median(row[name][i] for row in rows) for i in range(3)] for name in sides
    }
    for name, (fit, score, peak) in medians.items():
        print(f"  {name:<18} fit {fit:6.2f} s  scores {score:6.2f} s  {peak:6.0f} MB")
    fit, score, peak = (ours / theirs for ours, theirs in zip(*medians.values(), strict=True))
    print(f"  {'ratio':<18} fit {fit:6.2f}    scores {score:6.2f}    {peak:6.2f}")
    both = torch.stack([rows[0][name][3].flatten() for name in sides])
    print(f"  correlation of the scores {float(torch.corrcoef(both)[0, 1]):.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=("lds", "speed"))
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each half")
    parser.add_argument(
        "--solver",
        action="append",
        choices=tuple(SOLVERS),
        help="of the LDS; all, if none is named",
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.part in (None, "speed"):
        speed(args.threads)
    if args.part in (None, "lds"):
        lds(args.subsets, args.seeds, args.solver or list(SOLVERS))


if __name__ == "__main__":
    main()
