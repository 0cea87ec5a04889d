"""A function of a test file in two processes that exchange sums by gloo."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

import torch
import torch.multiprocessing as mp


def run_two(file: str, folder: Path) -> None:
    """Calls `one_of_two(rank, folder)` of the test file in each process; it is found by its path, as it has no name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_run_one, (port, file, folder), nprocs=2)


def _run_one(rank: int, port: int, file: str, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.one_of_two(rank, folder)  # as under torchrun: the group makes itself
    torch.distributed.barrier()  # or the first to leave takes the store with it
    torch.distributed.destroy_process_group()
