"""`seewhy evaluate --data`: what is wrong with a data set is told, also where no picture shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commands import called
from seewhy.cli.evaluate import evaluate


def test_what_was_found_while_listing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    torch.manual_seed(0)
    torch.save(
        timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "weights.pt"
    )
    chance = np.random.default_rng(0)
    rows = ["path,label,split,x0,y0,x1,y1"]
    for name, box in (("a", "5,5,30,30"), ("b", "5,5,90,30"), ("c", "5,5,,30")):
        Image.fromarray(chance.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
        rows.append(f"{name}.png,{int(name == 'b')},test,{box}")
    rows.append(",1,test,1,2,3,4")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    made = called(
        evaluate,
        task="localisation",
        data=f"csv:{tmp_path / 'list.csv'}",
        split="test",
        model=f"timm:test_resnet@{tmp_path / 'weights.pt'}",
        method=["cam"],
        metric=["pointing_game"],
        chance=False,
        out=tmp_path / "out",
        as_json=True,
    )
    said = capsys.readouterr()
    assert made == 0
    assert set(json.loads(said.out)["mended"]) == {"list.csv", "b.png", "c.png"}
    assert "mended list.csv: line 5: no path" in " ".join(said.err.split())
