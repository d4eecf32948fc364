"""Machine: how a training is computed, which must not change what comes out of it.

Several processes started by torchrun share every batch; the process with rank 0 writes the files.
"""

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from explain.errors import InputError

RAPL = tuple(path / "energy_uj" for path in Path("/sys/class/powercap").glob("intel-rapl:?"))
"""Where Linux tells the energy that each processor has used, where it may be read."""


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Args:
        device: "cpu", "cuda", or None for a GPU when there is one; a GPU computes in bf16 with fp32 weights.
        compile: compile the network; pays in long trainings on a GPU.
        accumulate: parts a batch is computed in, one after the other, to need less memory.
        recompute: keep no activations inside blocks but compute them again in the backward pass (gradient
            checkpointing).
        cache_mib: memory for what frozen blocks make of the images, so that it is computed once; 0 for none.
        checkpoint_s: seconds between the checkpoints within an epoch.
    """

    device: str | None = None
    compile: bool = False
    accumulate: int = 1
    recompute: bool = False
    cache_mib: int = 2048
    checkpoint_s: float = 60.0

    def __post_init__(self) -> None:
        if self.device not in (None, "cpu", "cuda"):
            raise InputError(f"expected device 'cpu' or 'cuda', got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("device 'cuda' asked for, but torch sees no GPU here; use --device cpu")
        if self.accumulate < 1 or self.cache_mib < 0 or self.checkpoint_s < 0:
            raise InputError(f"expected accumulate >= 1, cache_mib >= 0 and checkpoint_s >= 0, got {self}")

    @cached_property
    def accelerator(self) -> Accelerator:
        """The process group and the device, made on the first use."""
        on_gpu = (self.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda"
        return Accelerator(cpu=not on_gpu, mixed_precision="bf16" if on_gpu else "no")

    @property
    def torch_device(self) -> torch.device:
        """Where tensors go."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def name(self) -> str:
        """The GPU's name, or "cpu"."""
        return torch.cuda.get_device_name() if self.torch_device.type == "cuda" else "cpu"

    @property
    def precision(self) -> str:
        """What the network is computed in."""
        return "bf16 autocast" if self.torch_device.type == "cuda" else "fp32"

    @property
    def rank(self) -> int:
        """Which of the processes this one is; 0 writes the files."""
        return int(self.accelerator.process_index)

    @property
    def processes(self) -> int:
        """How many processes share every batch."""
        return int(self.accelerator.num_processes)

    def first(self) -> AbstractContextManager[None]:
        """What the process of rank 0 does before the others do."""
        context: AbstractContextManager[None] = self.accelerator.main_process_first()
        return context

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def total(self, values: list[float]) -> list[float]:
        """The sum of each number over all processes."""
        if self.processes == 1:
            return values
        # float32 is what every backend can add up; counts stay exact below 2^24
        summed: Tensor = self.accelerator.reduce(torch.tensor(values, device=self.torch_device), reduction="sum")
        return [float(value) for value in summed]

    def largest(self, value: int) -> int:
        """The largest of a number over all processes."""
        if self.processes == 1:
            return value
        return int(self.accelerator.gather(torch.tensor([value], device=self.torch_device)).max())

    def told(self, value: Any) -> Any:
        """JSON data of rank 0, on every process."""
        if self.processes == 1:
            return value
        content = json.dumps(value).encode() if self.rank == 0 else b""
        length = broadcast(torch.tensor([len(content)], device=self.torch_device))
        buffer = torch.zeros(int(length), dtype=torch.uint8, device=self.torch_device)
        if self.rank == 0:
            buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        return json.loads(bytes(broadcast(buffer).tolist()))


class PeakMemory:
    """Largest memory in use: allocated on a GPU, resident memory after each forward on a CPU; in MiB."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib = device, 0.0
        self._process = psutil.Process(os.getpid())
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Look now: activations are all alive between forward and backward."""
        on_gpu = self.device.type == "cuda"
        used = torch.cuda.max_memory_allocated(self.device) if on_gpu else self._process.memory_info().rss
        self.mib = max(self.mib, round(used / 2**20, 1))


def energy_used_j(device: torch.device) -> float | None:
    """Joules that the processor (or GPU) has used since some moment of the past; None where it does not tell."""
    if device.type == "cuda":
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except pynvml.NVMLError:
            return None
    try:
        return sum(int(path.read_text()) for path in RAPL) / 1e6 if RAPL else None
    except (OSError, ValueError):
        return None
