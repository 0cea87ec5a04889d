"""Walks of an autograd graph."""

from __future__ import annotations

from collections.abc import Iterable

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
                (child, False) for child, _ in node.next_functions if child is not None and child not in visited
            )
    return order


def between(starts: Iterable[Node], ends: Iterable[Node]) -> list[Node]:
    """The nodes on the ways from the starts to the ends, without the ends, what a node leads to before it."""
    leading = set(ends)
    found = []
    for node in children_first(*starts):
        if node not in leading and any(child in leading for child, _ in node.next_functions):
            leading.add(node)
            found.append(node)
    return found


def name_of(node: Node) -> str:
    """What autograd calls a node; a node written in Python may not tell once its graph is gone."""
    try:
        return node.name()
    except RuntimeError:
        return type(node).__name__
