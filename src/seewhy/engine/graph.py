"""Walks of an autograd graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch.autograd.graph import Node


def children_first(*starts: Node) -> list[Node]:
    """The nodes that these lead to and they themselves, what a node leads to before it."""
    order: list[Node] = []
    visited: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(start, False) for start in starts]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in visited:
            visited.add(node)
            stack.append((node, True))
            stack.extend(
                (child, False)
                for child, _ in leads_to(node)
                if child is not None and child not in visited
            )
    return order


def between(starts: Iterable[Node], ends: Iterable[Node]) -> list[Node]:
    """The nodes on the ways from the starts to the ends, without the ends, what a node leads to before it."""
    leading = set(ends)
    found = []
    for node in children_first(*starts):
        if node not in leading and any(child in leading for child, _ in leads_to(node)):
            leading.add(node)
            found.append(node)
    return found


def leads_to(node: Node) -> Sequence[tuple[Node | None, int]]:
    """What a node hands its gradients to; nothing where a node written in Python has outlived its graph."""
    try:
        return node.next_functions
    except RuntimeError:
        return ()


def name_of(node: Node) -> str:
    """What autograd calls a node; a node written in Python may not tell once its graph is gone."""
    try:
        return node.name()
    except RuntimeError:
        return type(node).__name__
