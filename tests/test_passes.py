"""Passes: chunks follow the measured cost and the budget, a failed chunk is halved, a caller may stop."""

from typing import Any

import pytest
import torch
from tiny_vits import tiny_images, tiny_vit

from explain.engine import attribute
from explain.errors import Cancelled, InputError
from explain.methods.base import METHODS
from explain.passes import FIRST_CHUNK, LARGEST_CHUNK, TRANSIENT, Passes
from explain.wrapping import wrap

CPU = torch.device("cpu")


def chunks(passes: Passes, count: int, bytes_each: int = 0, **more: Any) -> list[int]:
    """Sizes of the chunks of `count` samples that keep so many bytes each for the backward pass."""
    sizes = []

    def work(rows: slice) -> None:
        size = rows.stop - rows.start
        with passes.measuring("kind", size):
            leaf = torch.ones(size, max(1, bytes_each // 4), requires_grad=True)
            (leaf.exp() if bytes_each else leaf.detach()).sum()  # exp keeps its output
        sizes.append(size)

    passes.run(work, count, CPU, "kind", **more)
    assert sum(sizes) == count
    return sizes


def test_the_first_chunk_is_measured_and_the_others_fill_the_budget() -> None:
    budget = int(6 * TRANSIENT * 4000)
    assert chunks(Passes(budget), 20, 4000) == [FIRST_CHUNK, 6, 6, 4]


def test_a_budget_below_one_sample_still_goes_on_one_by_one() -> None:
    assert chunks(Passes(1), 7, 4000) == [FIRST_CHUNK, 1, 1, 1]


def test_chunks_are_never_larger_than_what_suits_the_device() -> None:
    assert max(chunks(Passes(), 100)) == LARGEST_CHUNK["cpu"]
    assert max(chunks(Passes(), 100, largest=8)) == 8


def test_the_cost_is_that_of_the_forward_that_was_measured() -> None:
    passes = Passes()
    with passes.measuring("kind", 2):
        torch.ones(2, 1000, requires_grad=True).exp().sum()
    assert passes._sample_bytes == {"kind": 4000}
    with passes.measuring("kind", 2):
        torch.ones(2, 9000, requires_grad=True).exp().sum()
    assert passes._sample_bytes == {"kind": 4000}, "measured once"


def test_weights_do_not_count() -> None:
    passes, layer = Passes(), torch.nn.Linear(1000, 1)
    with passes.measuring("kind", 1):
        layer(torch.ones(1, 1000))
    assert passes._sample_bytes["kind"] == 4000  # the input, not the weight


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("not enough memory: you tried")])
def test_out_of_memory_halves_the_chunk_and_tries_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def work(rows: slice) -> None:
        if rows.stop - rows.start > 3:
            raise error
        sizes.append(rows.stop - rows.start)

    Passes().run(work, 10, CPU, "kind")
    assert sizes == [2, 2, 2, 2, 2]
    assert caplog.messages == ["4 kind passes at once do not fit into memory; going on with 2"]


def test_other_errors_and_a_single_sample_too_large_are_raised() -> None:
    def too_large(rows: slice) -> None:
        raise torch.OutOfMemoryError("no")

    def broken(rows: slice) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(torch.OutOfMemoryError):
        Passes().run(too_large, 4, CPU, "kind")
    with pytest.raises(RuntimeError, match="shapes differ"):
        Passes().run(broken, 4, CPU, "kind")


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "much"])
def test_a_wrong_budget_is_refused(budget: Any) -> None:
    with pytest.raises(InputError, match="expected memory_budget 'auto' or a number of bytes above 0"):
        attribute(wrap(tiny_vit()), tiny_images(), memory_budget=budget)


def test_a_caller_may_stop_between_passes() -> None:
    asked = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > 5

    with pytest.raises(Cancelled, match="stopped on request"):
        attribute(wrap(tiny_vit()), tiny_images(8), methods="integrated_gradients", cancelled=cancelled)
    assert len(asked) == 6


class Watching(Passes):
    """Notes the size of every chunk of the path."""

    def run(self, work: Any, count: int, device: Any, kind: str, largest: int | None = None) -> None:
        def watched(rows: slice) -> None:
            self.memory.setdefault(kind, []).append(rows.stop - rows.start)
            work(rows)

        super().run(watched, count, device, kind, largest)


def test_chunks_do_not_grow_with_the_nodes_of_a_path() -> None:
    largest = {}
    for steps in (8, 64):
        passes, model, images = Watching(memory_budget=10**6), wrap(tiny_vit()).replica(), tiny_images(4)
        with model.capture(attention=False, passes=passes) as trace, torch.no_grad():
            model(images)
        METHODS.create("integrated_gradients", n_steps=steps)(trace, torch.zeros(4, dtype=torch.long))
        largest[steps] = max(passes.memory["gradient"])
    assert largest[8] == largest[64] < 4 * 8
