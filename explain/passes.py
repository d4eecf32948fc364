"""Passes: how a method runs forwards and gradients beyond the shared forward.

They run in chunks whose size follows from a memory budget and the measured cost of one sample, so that peak memory
depends neither on the number of path points nor on the batch; a chunk that does not fit is halved and tried again.
Between chunks a caller may stop the work.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from explain.errors import Cancelled, InputError

LOG = logging.getLogger(__name__)

LARGEST_CHUNK = {"cpu": 16, "cuda": 256}
"""Samples per chunk at most: where more stopped being faster on a CPU, and where a GPU is busy."""

FIRST_CHUNK = 4
"""Samples of the chunk whose cost is measured."""

TRANSIENT = 1.5
"""What a pass holds at its peak over what it saves for the backward pass; 1.2 to 1.4 measured on ViTs."""


@dataclass
class Passes:
    """Chunks of samples under a memory budget.

    Args:
        memory_budget: bytes that one chunk may take, or "auto": 1 GiB on a CPU, half of a GPU's memory. Both are
            constants of the machine, so that equal calls use equal chunks and give equal bits.
        cancelled: asked between chunks; True stops the work with `Cancelled`.
        memory: what a method keeps from one batch of a call to the next, under a key of its own.
    """

    memory_budget: int | str = "auto"
    cancelled: Callable[[], bool] | None = None
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    _sample_bytes: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        whole = isinstance(self.memory_budget, int) and not isinstance(self.memory_budget, bool)
        if self.memory_budget != "auto" and not (whole and int(self.memory_budget) > 0):
            raise InputError(f"expected memory_budget 'auto' or a number of bytes above 0, got {self.memory_budget!r}")

    def check(self) -> None:
        """Raise Cancelled when the caller asked to stop."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("stopped on request; nothing was returned")

    def run(
        self, work: Callable[[slice], None], count: int, device: torch.device, kind: str, largest: int | None = None
    ) -> None:
        """Call `work` on consecutive slices of `count` samples.

        Args:
            work: runs the samples of a slice, the costly part inside `measuring`, and only then keeps their result, as
                it may be called again on half of them.
            count: samples in all.
            device: where they run.
            kind: what a sample costs is measured once per kind, such as "gradient" or "forward".
            largest: samples per chunk at most; None for what suits the device.

        Raises:
            Cancelled: the caller asked to stop.
        """
        start, limit = 0, largest or LARGEST_CHUNK.get(device.type, 64)
        while start < count:
            self.check()
            size = min(self._fitting(device, kind), limit, count - start)
            try:
                work(slice(start, start + size))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                limit = size // 2
                LOG.warning("%d %s passes at once do not fit into memory; going on with %d", size, kind, limit)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            else:
                start += size

    @contextmanager
    def measuring(self, kind: str, samples: int) -> Iterator[None]:
        """Count the bytes that autograd keeps alive inside, weights aside, the first time a kind is seen."""
        if kind in self._sample_bytes:
            yield
            return
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        self._sample_bytes[kind] = sum(seen.values()) // samples

    def budget(self, device: torch.device) -> int:
        """The memory budget in bytes."""
        if isinstance(self.memory_budget, int):
            return self.memory_budget
        if device.type == "cuda":
            return int(torch.cuda.get_device_properties(device).total_memory) // 2
        return 2**30

    def _fitting(self, device: torch.device, kind: str) -> int:
        if kind not in self._sample_bytes:
            return FIRST_CHUNK
        return max(1, int(self.budget(device) / (TRANSIENT * max(1, self._sample_bytes[kind]))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a GPU or of the machine, did not suffice."""
    # the CPU allocator has no exception class of its own
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
