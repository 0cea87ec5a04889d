"""`seewhy labels`."""

from __future__ import annotations

import json

import pytest

from seewhy.cli import run


def test_labels_of_the_embedded_model_by_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["labels", "efficientnet_lite0", "Cat"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].split() == ["label", "class"]
    assert ["tiger", "cat", "282"] in [line.split() for line in lines]
    assert said.err == "Labels of efficientnet_lite0\n"
    assert run(["labels", "efficientnet_lite0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["labels"]) == 1000
    assert told["labels"][282] == {"class": 282, "label": "tiger cat"}


def test_labels_of_another_model_and_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["labels", "timm:test_resnet", "tabby"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["tabby", "281"]
    assert run(["labels", "efficientnet_lite0", "tabbi"]) == 1
    assert "has 'tabbi' in it; did you mean 'tabby'" in capsys.readouterr().err
