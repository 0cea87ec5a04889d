"""Walks of an autograd graph."""

from __future__ import annotations

import torch
from torch.autograd.graph import Node

from seewhy.engine.graph import between, children_first


def _node(x: torch.Tensor) -> Node:
    assert x.grad_fn is not None
    return x.grad_fn


def test_what_lies_between() -> None:
    leaf, beside = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    tap = leaf.clone()
    a = tap.exp()
    b = a + beside.sin()
    end = b * a
    assert between([_node(end)], [_node(tap)]) == [_node(v) for v in (a, b, end)]
    order = children_first(_node(end))
    assert all(
        order.index(child) < order.index(node)
        for node in order
        for child, _ in node.next_functions
        if child
    )
    assert between([_node(tap)], [_node(end)]) == []
