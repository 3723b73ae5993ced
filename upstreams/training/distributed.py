"""The ranks of one run: one process alone, or several under ``torchrun``."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from superbit.upstreams.errors import InputError

# What gloo and NCCL say when a peer is gone; neither has an exception of its own for it.
_LOST = ("connection", "peer", "gloo", "nccl", "timed out", "timeout", "socket", "broken pipe")


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among the others.

    Attributes:
        rank: 0 … size − 1; rank 0 writes files.
        size: number of ranks.
        device: of this rank's model.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over ranks of a tensor of the same shape on each."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.total(torch.zeros(1, device=self.device)).item()


@contextmanager
def joined(device: str | None) -> Iterator[World]:
    """Join the ranks that ``torchrun`` started, or stay alone, until the block ends.

    Args:
        device: ``"cpu"`` or ``"cuda"``; None: a GPU where there is one.

    Raises:
        InputError: the device is not there, or another rank died.
    """
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"device {device!r} is unknown; there are cpu and cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, and torch finds none; cpu is there.")
    on_gpu = torch.cuda.is_available() if device is None else device == "cuda"
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else "cpu"
    world = World(rank=rank, size=size, device=torch.device(where))
    if on_gpu:
        torch.cuda.set_device(world.device)
    if size == 1:
        yield world
        return
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield world
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        _leave_behind(dist.group.WORLD)
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"rank {rank} of {size} lost another rank ({reason}); the checkpoints are whole: "
            "give the same command again to go on from the last."
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _leave_behind(group: dist.ProcessGroup | None) -> None:
    """Keep a group with a dead member from being taken down, as long as this process lives.

    torch takes it down while it holds Python's lock and waits for gloo's threads, which may need
    that lock to let go of their tensors: this process would never end (seen with torch 2.13).
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    time.sleep(0.1)  # those threads have the lock meanwhile


def in_parallel(module: nn.Module, world: World, *, find_unused: bool) -> nn.Module:
    """Return what averages the gradients of ``module`` over ranks; alone, the module itself.

    Args:
        module: on its device.
        world: this rank.
        find_unused: an update may leave out some of what is trained.
    """
    if world.size == 1:
        return module
    return DistributedDataParallel(
        module,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        find_unused_parameters=find_unused,
        gradient_as_bucket_view=True,
    )


def synchronised(parallel: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Return a context in which gradients are averaged over ranks only by the last of many."""
    if last or not isinstance(parallel, DistributedDataParallel):
        return nullcontext()
    return parallel.no_sync()
