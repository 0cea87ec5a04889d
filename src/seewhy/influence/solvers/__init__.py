"""Solvers by name: from the training data to influences."""

from __future__ import annotations

from .catalog import SOLVERS, find_solver, own_solver
from .solver import Solver

__all__ = ["SOLVERS", "Solver", "find_solver", "own_solver"]
