"""Which training digits taught a network its answer, and which labels are wrong: from nothing to pictures.

A small network learns scikit-learn's digits, of which 5 % have a wrong label; then the training digits that helped and
harmed one of its answers most are drawn, and the labels that look wrong.

    python examples/influence_digits.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import seewhy
from seewhy.influence import InfluenceIndex, mislabeled
from seewhy.influence.answers.sheets import influence_sheet, mislabeled_sheet

DECAY, STEPS = 1e-3, 360


def train(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    body = [
        nn.Conv2d(1, 24, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, 1, 1),
    ]
    net = nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
    for _ in range(STEPS):
        batch = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "influence-digits")
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    x, y = (
        torch.tensor(digits.images / 16, dtype=torch.float32)[:, None],
        torch.tensor(digits.target),
    )
    wrong = torch.rand(1500, generator=torch.Generator().manual_seed(0)) < 0.05
    labels = torch.where(wrong, (y[:1500] + 3) % 10, y[:1500])
    model = seewhy.wrap(train(x[:1500], labels), labels=[f"digit {i}" for i in range(10)])
    index = InfluenceIndex.fit(model, (x[:1500], labels), l2=DECAY, announce=print)
    test = x[1501:1502]
    (found,) = index.query(test, k=5)
    influence_sheet(index, test, found).save(out / "taught.png")
    suspects = mislabeled(index, 24)
    mislabeled_sheet(index, suspects).save(out / "mislabelled.png")
    print(
        f"{sum(bool(wrong[one.index]) for one in suspects)} of the first 24 labels to check are wrong"
    )
    print(f"Look at {out / 'taught.png'} and {out / 'mislabelled.png'}")


if __name__ == "__main__":
    main()
