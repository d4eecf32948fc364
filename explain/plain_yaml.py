"""Plain YAML: values of a recipe or of an option, from text that anyone may have written.

No tag makes an object, and there are no aliases: a few lines of them stand for more values than a machine has memory
for. What is wrong is told with its line.
"""

import math
import re
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from explain.errors import InputError
from explain.record import Record

MAX_DEPTH = 50
"""No recipe is nested so deep; the parser calls itself for every level."""

MOST_CLAUSES = 20
"""Wrong fields that a message lists."""

_OCTAL = re.compile("[-+]?0[0-9_]")
"""A whole number with leading zeros, as of an article: YAML counts it in eights."""

Lines = dict[tuple[Any, ...], int]
"""Path of a key, such as ("arms", "vpt", "tuning") -> its line, counted from 1."""


def parse_yaml(text: str, what: str) -> tuple[Any, Lines]:
    """The value of a YAML text, and the line of each of its keys.

    Args:
        text: the YAML.
        what: where it comes from, for the message.

    Raises:
        InputError: not YAML, a tag, an alias, a key that is there twice, or nested too deep.
    """
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise InputError(f"{what}{line}: {error.problem or error.context}; expected plain YAML") from None
    except yaml.YAMLError as error:  # a character that YAML does not have
        raise InputError(f"{what}: {' '.join(str(error).split())}; expected plain YAML") from None
    lines: Lines = {}
    _note_lines(node, (), lines)
    return value, lines


Kind = TypeVar("Kind", bound=Record)


def parse_record(text: str, what: str, kind: type[Kind]) -> Kind:
    """A record from the YAML that a person wrote.

    Args:
        text: the YAML, a mapping of fields; an empty one has none.
        what: where it comes from, for the message.
        kind: the record.

    Raises:
        InputError: with a clause for each wrong field, and its line.
    """
    values, lines = parse_yaml(text, what)
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{what}: expected fields such as `{next(iter(kind.model_fields))}: …`, got a "
                         f"{type(values).__name__}")  # fmt: skip
    return check_record(values or {}, what, kind, lines)


def check_record(values: Any, what: str, kind: type[Kind], lines: Lines | None = None) -> Kind:
    """A record from plain values; `lines` are those of a file that they were read from.

    Raises:
        InputError: see `parse_record`.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_input=False)
        clauses = [f"{_place(one['loc'], lines or {}, kind)}: {one['msg']}" for one in found[:MOST_CLAUSES]]
        if len(found) > MOST_CLAUSES:
            clauses.append(f"and {len(found) - MOST_CLAUSES} more")
        raise InputError(f"{what}: {'; '.join(clauses)}. Known fields: {', '.join(kind.model_fields)}") from None


def _place(location: tuple[int | str, ...], lines: Lines, kind: type[Record]) -> str:
    """A field by its place in the record, with the line of the nearest key that a file has for it."""
    known = [lines[location[:length]] for length in range(len(location), 0, -1) if location[:length] in lines]
    line = f" (line {known[0]})" if known else ""
    return ".".join(map(str, location))[:200] + line if location else kind.__name__.lower()


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, doubled keys, deep nesting and half characters."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _problem(f"an alias (*{event.anchor}) is not allowed, write the value out", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _problem(f"it is nested more than {MAX_DEPTH} levels deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise _problem("it holds half of a character", node)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError) as error:
            raise _problem(f"no value of its type ({error})", node) from None
        if isinstance(value, float) and not math.isfinite(value) or isinstance(value, int) and abs(value) >= 2**63:
            raise _problem("expected a finite number that 64 bits hold", node)
        if isinstance(value, int) and not isinstance(value, bool) and _OCTAL.match(node.value):
            raise _problem(f"{node.value} would be read as {value}; write it in quotes, or without leading zeros", node)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        known: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in known:
                raise _problem(f"the key {key.value!r} is there twice", key)
            known.add(key.value)
        return super().construct_mapping(node, deep)


def _problem(what: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, what, at.start_mark)


def _note_lines(node: Any, path: tuple[Any, ...], lines: Lines) -> None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    for key, value in pairs:
        lines[(*path, str(key.value))] = key.start_mark.line + 1
        _note_lines(value, (*path, str(key.value)), lines)
    for index, value in enumerate(node.value if isinstance(node, yaml.SequenceNode) else ()):
        lines[(*path, index)] = value.start_mark.line + 1
        _note_lines(value, (*path, index), lines)
