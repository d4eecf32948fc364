"""Train into a folder while being killed again and again: `python killed.py DATA OUT SEED`.

Every event (a step done, a file about to be renamed, a file just renamed) is a moment at which the process may die by
SIGKILL. Each child trains until its moment comes; the next one goes on from what is on disk, until one lives.
Prints how many children died.
"""

import json
import os
import random
import signal
import sys

import torch
from squares import TINY_RECIPE

from explain.data.base import load_data
from explain.training.machine import Machine
from explain.training.recipe import Arm
from explain.training.train import train_pair

torch.set_num_threads(1)
ARMS = {
    "vpt": Arm(tuning="prompt", options={"num_tokens": 3, "prompt_dropout": 0.3}, learning_rates=(1e-3, 1e-2)),
    "ft": Arm(tuning="full", learning_rates=(1e-5, 1e-4)),
}
RECIPE = TINY_RECIPE.model_copy(update={"arms": ARMS, "epochs": 3, "select": "best"})


def train(data: str, out: str, events: int | None = None) -> None:
    """Train the pair; die at event number `events`."""
    left = [events]

    def event(*_: object) -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    rename = os.replace

    def renaming(*arguments: object) -> None:
        event()
        rename(*arguments)
        event()

    os.replace = renaming
    train_pair(load_data(data), RECIPE, out=out, machine=Machine(device="cpu", checkpoint_s=0), progress=event)


def main() -> None:
    """See the module."""
    data, out, draw = sys.argv[1], sys.argv[2], random.Random(int(sys.argv[3]))
    died = 0
    while True:
        # the first events of a child are those of reading images: the moment has to lie behind them, now and then
        child = os.fork()
        if child == 0:
            train(data, out, draw.randrange(20, 60))
            os._exit(0)
        draw.random()  # the child's draw, so that the next one dies elsewhere
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            died += 1
        else:
            print(json.dumps({"died": died, "exit": os.WEXITSTATUS(status)}))
            return


if __name__ == "__main__":
    main()
