"""Several processes that share a work: the share of each, and what they tell each other.

Under `torchrun` the group is made when it is first needed. All processes see one folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
Group = Any  # of processes, as torch.distributed takes it


@dataclass(frozen=True)
class World:
    """This process among all; alone it is the first of one."""

    rank: int = 0
    size: int = 1

    def mine(self, items: list[T]) -> list[T]:
        """Every size-th item, from this process's rank on."""
        return items[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over the processes, in place."""
        if self.size > 1:
            total = tensor.detach().cpu().contiguous()  # gloo takes the CPU's alone
            dist.all_reduce(total, group=_group())
            tensor.detach().copy_(total)
        return tensor

    def rows(self, tensor: Tensor) -> Tensor:
        """The rows (n, ...) of all processes, in order of rank."""
        if self.size == 1:
            return tensor
        parts = [
            tensor.detach().cpu().contiguous()
            if rank == self.rank
            else torch.empty(shape, dtype=tensor.dtype)
            for rank, shape in enumerate(self.gather(tensor.shape))
        ]
        for rank, part in enumerate(parts):
            dist.broadcast(part, src=rank, group=_group())
        return torch.cat(parts).to(tensor.device)

    def first(self, value: T) -> T:
        """The first process's value."""
        held = [value]
        if self.size > 1:
            dist.broadcast_object_list(held, src=0, group=_group())
        return held[0]

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank; also waits for all of them."""
        if self.size == 1:
            return [value]
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value, group=_group())
        return found


_gloo: list[Group] = []  # the group, made once


def _group() -> Group:
    if dist.get_backend() == "gloo":
        return None
    if not _gloo:
        _gloo.append(dist.new_group(backend="gloo"))
    return _gloo[0]


def world() -> World:
    """This process among those that `torchrun` or `init_process_group` started."""
    if not dist.is_available():
        return World()
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
            return World()
        dist.init_process_group("gloo")
    return World(dist.get_rank(), dist.get_world_size())
