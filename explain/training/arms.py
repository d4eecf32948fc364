"""Arms from a line of text, such as "prompt:num_tokens=50,blocks=6-11": what the command line asks for."""

from collections.abc import Sequence
from dataclasses import fields

from explain.errors import InputError
from explain.plain_yaml import parse_yaml
from explain.training.recipe import Arm, Recipe, Value
from explain.tuning.base import TUNINGS

PAIR = {"prompt": "vpt", "full": "ft"}
"""Tunings whose arms have names of their own, because they make the pair."""


def arms_of(texts: Sequence[str]) -> dict[str, Arm]:
    """The arms asked for, by name; a second arm of one tuning is numbered.

    Each is a tuning's name, then its options after a colon: "lora:rank=4". Learning rates are the tuning's own.

    Raises:
        UnknownNameError: no such tuning.
        InputError: an option the tuning does not have, or a value it does not take.
    """
    arms: dict[str, Arm] = {}
    for text in texts:
        tuning, _, rest = text.partition(":")
        options = dict(_option(part, text) for part in rest.split(",") if part)
        TUNINGS.create(tuning, **options)  # a wrong option is told before anything is read or trained
        base, number = PAIR.get(tuning, tuning), 1
        while (name := base if number == 1 else f"{base}{number}") in arms:
            number += 1
        start = "ft" if TUNINGS[tuning].continues else None
        arms[name] = Arm.of(tuning, **options).model_copy(update={"start_from": start})
    for name, arm in arms.items():
        if arm.start_from is not None and arm.start_from not in arms:
            raise InputError(f"arm {name!r} goes on from full fine-tuning; add --tuning full")
    return arms


def with_choices(recipe: Recipe, texts: Sequence[str]) -> Recipe:
    """A recipe that also searches what the texts say, such as "num_tokens=1,5,10" or "weight_decay=0,0.01".

    An option is searched in every arm whose tuning has it.

    Raises:
        InputError: not "name=value,value", or an option that no arm has.
    """
    arms = dict(recipe.arms)
    for text in texts:
        name, values = _choice(text)
        if name == "weight_decay":
            arms = {arm: of.model_copy(update={"weight_decays": values}) for arm, of in arms.items()}
            continue
        having = {arm: of for arm, of in arms.items() if name in _options(of)}
        if not having:
            known = sorted({option for arm in arms.values() for option in _options(arm)} | {"weight_decay"})
            raise InputError(f"no arm has an option {name!r} to choose; there are {', '.join(known)}")
        arms |= {arm: of.model_copy(update={"choices": of.choices | {name: values}}) for arm, of in having.items()}
    plain = {name: arm.model_dump(mode="json") for name, arm in arms.items()}
    return Recipe.parse(recipe.model_dump(mode="json") | {"arms": plain})


def _options(arm: Arm) -> list[str]:
    return [field.name for field in fields(TUNINGS[arm.tuning])]  # type: ignore[arg-type]


def _choice(text: str) -> tuple[str, tuple[Value, ...]]:
    name, equals, rest = text.partition("=")
    values = tuple(_value(part) for part in rest.split(",") if part)
    if not equals or not values:
        raise InputError(f"expected name=value,value such as num_tokens=1,5,10, got {text!r}")
    return name, values


def _option(part: str, text: str) -> tuple[str, Value]:
    name, equals, value = part.partition("=")
    if not equals:
        raise InputError(f"expected TUNING:option=value,…, got {text!r}")
    return name, _value(value)


def _value(text: str) -> Value:
    """A number or truth value where the text reads as one."""
    try:
        value, _ = parse_yaml(text, "option")
    except InputError:
        return text
    return value if isinstance(value, (bool, int, float, str)) else text
