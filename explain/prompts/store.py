"""PromptStore: a folder that keeps every version of every prompt, readable by hand.

    objects/<id>/card.json                 what it is
    objects/<id>/weights.safetensors       prompts and head, or whatever the run trained
    objects/<id>/predictions.safetensors   answers on the test images
    names/<name>.json                      versions, tags, aliases, criteria and log of one name

An object is named by its content and never changes. A version exists once its name's file lists it; an object that no
file lists is left over from a stopped command and does no harm.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from explain.data.names import printable
from explain.errors import InputError, IntegrityError, UnknownNameError
from explain.files import sha256_file, write_atomically, write_json
from explain.prompts.card import SAID, Card, card_of, check_weights
from explain.prompts.history import Event, History, Version, change_history, read_history
from explain.prompts.naming import (
    PRODUCTION,
    check_label,
    check_name,
    is_number,
    is_prefix,
    parse_reference,
)
from explain.prompts.stored import (
    CARD,
    FILES,
    PREDICTIONS,
    WEIGHTS,
    Stored,
    check_files,
    read_card,
    read_predictions,
    write_predictions,
)
from explain.tensor_files import read_weights
from explain.training.run import Run


@dataclass(frozen=True)
class PromptStore:
    """Prompts under version control in a folder; several processes may use it at once.

    Args:
        path: the folder; made by the first `add`.
    """

    path: Path

    def __init__(self, path: str | Path = "prompts") -> None:
        object.__setattr__(self, "path", Path(path))

    @property
    def objects(self) -> Path:
        """Folder of the versions."""
        return self.path / "objects"

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(path.stem for path in (self.path / "names").glob("*.json") if not path.name.startswith("."))

    def history(self, name: str) -> History:
        """The history of a name.

        Raises:
            UnknownNameError: no such name.
        """
        check_name(name, "prompt name")
        found = read_history(self.path / "names", name)
        if found is None:
            known = ", ".join(self.names()) or "none yet"
            raise UnknownNameError(f"no prompt {name!r} in {self.path}; known: {known}. "
                                   "`explain prompts add` registers a run")  # fmt: skip
        return found

    def change(self, name: str, change: Callable[[History | None], History]) -> History:
        """Write the next state of a name; see `change_history`."""
        return change_history(self.path / "names", name, change)

    def resolve(self, reference: str) -> Version:
        """The version a reference such as "line-3@production" means now.

        Raises:
            UnknownNameError: no such name, version, tag or alias.
            InputError: several versions begin like that, or it belongs to another name.
        """
        name, selector = parse_reference(reference)
        history = self.history(name)
        if selector is None:
            return history.versions[-1]
        if is_number(selector):
            found = [version for version in history.versions if version.number == int(selector.removeprefix("v"))]
        elif selector in history.aliases or selector in history.tags:
            found = [history.version((history.aliases | history.tags)[selector])]
        else:
            found = [version for version in history.versions if is_prefix(selector) and version.id.startswith(selector)]
        if len(found) == 1:
            return found[0]
        if found:
            numbers = ", ".join(f"v{version.number} {version.id[:12]}" for version in found)
            raise InputError(f"{reference!r} could be {numbers}; write more digits of the one you mean")
        self._refuse_foreign(name, selector)
        labels = ", ".join([f"v{version.number}" for version in history.versions] + [*history.aliases, *history.tags])
        raise UnknownNameError(f"{name!r} has no version, alias or tag {selector!r}; it has {labels}")

    def _refuse_foreign(self, name: str, selector: str) -> None:
        owners = [other for other in self.names() if is_prefix(selector)
                  and any(version.id.startswith(selector) for version in self.history(other).versions)]  # fmt: skip
        if owners:
            raise InputError(f"{selector!r} is a version of {owners[0]!r}, not of {name!r}; a name's tags and aliases "
                             f"stay with its own versions. Register the run under {name!r} first")  # fmt: skip

    def get(self, reference: str) -> Stored:
        """The version a reference means, with its card.

        Raises:
            ExplainError: as in `resolve`, or the card is not the one the history recorded.
        """
        name = parse_reference(reference).name
        return self.at(name, self.resolve(reference))

    def at(self, name: str, version: Version) -> Stored:
        """A version of a name, with its card.

        Raises:
            IntegrityError: the card is missing or not the one the history recorded.
        """
        folder = self.objects / version.id
        card = read_card(folder)
        if (card.id, card.sha256, card.name) != (version.id, version.card_sha256, name):
            raise IntegrityError(f"{folder / CARD} changed since it was registered; restore it from a backup, or "
                                 "register the run again in a new store")  # fmt: skip
        return Stored(folder, version, card)

    def add(
        self, run: Run | str | Path, *, name: str, owner: str, purpose: str, approver: str = "",
        metrics: Mapping[str, float] | None = None, who: str | None = None,
    ) -> Stored:  # fmt: skip
        """Register a finished run as the next version of a name; equal content is the version that is already there.

        Args:
            run: the run, or its folder.
            name: of the prompt, such as "line-3"; made when new.
            owner, purpose: who answers for it, and what it is for.
            approver: who agreed to its registration.
            metrics: further measurements, such as {"completeness gap": 0.012}.
            who: for the log; None for the account.

        Raises:
            InputError: an unsafe name, no owner or purpose, a run that trained too much, other classes than the
                name's, or a version that is there with another owner, purpose, approver or metrics.
            IntegrityError: the run's files changed since training.
        """
        check_name(name, "prompt name")
        run = run if isinstance(run, Run) else Run.load(run)
        with self.fresh_folder() as folder:
            weights = run.path / WEIGHTS
            write_atomically(folder / WEIGHTS, lambda path: shutil.copyfile(weights, path))
            write_predictions(folder / PREDICTIONS, run.predictions)
            card = card_of(
                run, name=name, files={file: sha256_file(folder / file) for file in FILES}, owner=owner,
                purpose=purpose, approver=approver, metrics=dict(metrics or {}), parent=None,
            )  # fmt: skip
            return self.keep(folder, card, what="add", who=who, note=printable(run.path))

    @contextmanager
    def fresh_folder(self) -> Iterator[Path]:
        """An empty folder on the store's disk, for `keep` to move into place; gone afterwards."""
        self.objects.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.objects, prefix=".new-") as temporary:
            folder = Path(temporary) / "object"
            folder.mkdir()
            yield folder

    def keep(self, folder: Path, card: Card, *, what: Event, who: str | None, note: str) -> Stored:
        """Move a folder of checked files into place as the next version of its card's name.

        Args:
            folder: from `fresh_folder`, holding the files the card lists.
            card: of the version; without a parent it follows the newest one.
            what, who, note: for the log.

        Raises:
            InputError: other classes than the name's, or the version is there with other metadata.
            IntegrityError: the files are not those of the card.
        """
        check_files(folder, card)
        check_weights(card, read_weights(folder / WEIGHTS)[0])
        read_predictions(folder / PREDICTIONS, len(card.class_names))

        def change(history: History | None) -> History:
            history = history or History(name=card.name)
            known = [version for version in history.versions if version.id == card.id]
            if known:
                _check_same(self.at(card.name, known[0]).card, card)
                return history
            newest = self.at(card.name, history.versions[-1]).card if history.versions else None
            if newest is not None and newest.class_names != card.class_names:
                raise InputError(
                    f"{card.name!r} tells {len(newest.class_names)} classes apart ({', '.join(newest.class_names)}), "
                    f"the run {len(card.class_names)} ({', '.join(card.class_names)}); whoever uses the name counts on "
                    "its classes. Register the run under another name"
                )
            parent = card.parent or (newest.id if newest else None)
            final = card.model_copy(update={"parent": parent})
            final = self._place(folder, final)
            version = Version(number=len(history.versions) + 1, id=final.id, card_sha256=final.sha256)
            history = history.model_copy(update={"versions": (*history.versions, version)})
            return history.with_entry(what, who=who, after=final.id, notes=(note,), approver=card.approver)

        history = self.change(card.name, change)
        return self.at(card.name, history.version(card.id))

    def _place(self, folder: Path, card: Card) -> Card:
        """Rename into `objects`; what a stopped command left there under the same id is put right."""
        write_json(folder / CARD, card.model_dump(mode="json"))
        folder.chmod(0o755)
        target = self.objects / card.id
        if target.exists():
            os.replace(target, folder.parent / "left over")
        os.replace(folder, target)
        return card

    def tag(self, reference: str, tag: str, *, who: str | None = None) -> None:
        """Give a version a label that never moves.

        Raises:
            InputError: the label is on another version, is an alias, or could be taken for a version.
        """
        check_label(tag, "tag")
        name, version = parse_reference(reference).name, self.resolve(reference)

        def change(history: History | None) -> History:
            history = history or self.history(name)
            if tag in history.aliases:
                raise InputError(f"{tag!r} is an alias of {name!r}; a tag needs a word of its own")
            held = history.tags.get(tag)
            if held == version.id:
                return history
            if held is not None:
                raise InputError(f"tag {tag!r} of {name!r} is on v{history.version(held).number} and never moves; "
                                 "choose another word, or use an alias")  # fmt: skip
            history = history.model_copy(update={"tags": history.tags | {tag: version.id}})
            return history.with_entry("tag", who=who, label=tag, after=version.id)

        self.change(name, change)

    def alias(self, reference: str, alias: str, *, who: str | None = None) -> None:
        """Point an alias at a version; "production" is moved by a promotion only.

        Raises:
            InputError: the label is "production", a tag, or could be taken for a version.
        """
        if alias == PRODUCTION:
            raise InputError(
                f"{PRODUCTION!r} is moved by `explain prompts promote {reference} --to {PRODUCTION} --approver NAME`, "
                "which checks the criteria, or by `explain prompts rollback`"
            )
        name, version = parse_reference(reference).name, self.resolve(reference)
        check_alias(self.history(name), alias)

        def change(history: History | None) -> History:
            history = history or self.history(name)
            check_alias(history, alias)
            before = history.aliases.get(alias)
            if before == version.id:
                return history
            history = history.pointing(alias, version.id)
            return history.with_entry("alias", who=who, label=alias, before=before, after=version.id)

        self.change(name, change)

    def rollback(self, name: str, alias: str = PRODUCTION, *, who: str | None = None) -> Version:
        """Point an alias at what it pointed at before; again, and it goes one further back.

        Raises:
            InputError: it never pointed at anything else.
        """
        self.history(name)

        def change(history: History | None) -> History:
            history = history or self.history(name)
            stack = history.stack(alias)
            if len(stack) < 2:
                state = f"has only ever pointed at v{history.version(stack[0]).number}" if stack else "does not exist"
                raise InputError(f"{name}@{alias} {state}; there is nothing to go back to")
            history = history.pointing(alias, stack[-2])
            return history.with_entry("rollback", who=who, label=alias, before=stack[-1], after=stack[-2])

        history = self.change(name, change)
        return history.version(history.aliases[alias])

    def verify(self) -> list[str]:
        """Hash every file, check every card and every history: one sentence per thing that is wrong.

        Raises:
            InputError: there is no store, of which nothing could be said.
        """
        if not self.path.is_dir():
            raise InputError(f"there is no store at {self.path}; give its folder by --store or EXPLAIN_PROMPTS")
        problems: list[str] = []
        for name in self.names():
            try:
                history = self.history(name)
            except (IntegrityError, InputError) as error:
                problems.append(str(error))
                continue
            problems += [f"names/{name}.json: {problem}" for problem in history.problems()]
            for version in history.versions:
                try:
                    stored = self.at(name, version)
                    check_weights(stored.card, stored.tensors())
                    stored.predictions()
                except IntegrityError as error:
                    problems.append(f"{name}@v{version.number}: {error}")
        return problems


def check_alias(history: History, alias: str) -> None:
    """Raise InputError unless the label may be an alias of this name."""
    check_label(alias, "alias")
    if alias in history.tags:
        raise InputError(f"{alias!r} is a tag of {history.name!r} and never moves; an alias needs a word of its own")


def _check_same(there: Card, new: Card) -> None:
    fields = [(field, getattr(there, field), getattr(new, field)) for field in sorted(SAID - {"created", "parent"})]
    differing = "; ".join(f"{field}: {old!r} there, {now!r} now" for field, old, now in fields if old != now)
    if differing:
        raise InputError(f"this content is a version of {there.name!r}, and versions never change ({differing}). "
                         "Say what is new with a tag, or train a new run")  # fmt: skip
