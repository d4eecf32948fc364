"""Damage from a seed: files as a broken disk, a careless hand or an attacker may leave them."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

DEEP = 3_000
"""Levels of nesting that exhaust a recursive reader."""

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 2**31, 2**63, -(2**80), 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "0",
    "../../etc/passwd", "/etc/passwd", "C:\\windows\\x", "file:///etc/passwd", "nul\0byte", "\ud800", "\u202eevil",
    "x" * 10_000, [], [[]], [None], ["a", 1], [1, 2, 3], {}, {"": None}, {"a": {"b": []}}, [0.1] * 4,
)  # fmt: skip
"""What stands where something else is expected."""


def damage_bytes(content: bytes, seed: int) -> bytes:
    """Flipped bits, cuts, doubled and moved pieces, inserted rubbish: one to five of them, drawn from a seed."""
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        at, length = rng.randrange(len(data) + 1), rng.randint(1, 64)
        match rng.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at % len(data)] = rng.choice((0, 1, 127, 128, 254, 255))
            case 2:
                data[at:at] = rng.randbytes(length)
            case 3:
                data[at:at] = data[rng.randrange(len(data) + 1) :][:length]
            case 4:
                del data[at : at + length]
            case _:
                del data[max(at, len(data) // 4) :]
    return bytes(data)


def damage_json(value: Any, seed: int) -> bytes:
    """JSON text in which one to three values were replaced, taken out, doubled, renamed or nested too deep."""
    rng = random.Random(seed)
    if rng.random() < 0.15:
        return damage_bytes(json.dumps(value).encode(), seed)
    root = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(list(_places(root)))
        _change(holder, key, rng)
    text = json.dumps(root[0])
    if rng.random() < 0.05:
        text = text.replace("null", "[" * DEEP + "]" * DEEP, 1)
    elif rng.random() < 0.05:
        text = text.replace("1", "1" * 5_000, 1)  # more digits than Python turns into a number
    return text.encode()


def _change(holder: Any, key: Any, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0 and isinstance(holder, dict):
        holder[rng.choice(("../x", "format", "_target_", ""))] = holder.pop(key)
    elif kind == 1 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1 and holder:
        holder.insert(0, copy.deepcopy(holder[key]))
    elif kind == 2 and isinstance(holder[key], list):
        holder[key] = dict(enumerate(holder[key]))
    elif kind == 2 and isinstance(holder[key], dict):
        holder[key] = list(holder[key].values())
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of everything inside a value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


Damage = Callable[[int], bytes]
"""From a seed to the bytes of a damaged file."""
