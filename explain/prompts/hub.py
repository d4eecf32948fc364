"""Hub: one version as a folder laid out like a Hugging Face model repository, to push and to pull.

    README.md                   model card with its YAML front matter
    config.json                 what a program reads first: backbone, tuning, classes
    model.safetensors           prompts and head
    predictions.safetensors     answers on the test images
    card.json                   the card, by which a pull checks all of it

`hf:owner/name` stands for such a repository on the hub, anything else is a folder.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from explain.data.names import printable
from explain.errors import ExplainError, InputError
from explain.files import write_atomically, write_json
from explain.prompts.card import Card
from explain.prompts.naming import check_name
from explain.prompts.store import PromptStore
from explain.prompts.stored import CARD, PREDICTIONS, WEIGHTS, Stored, check_files, read_card

HUB = "hf:"
MODEL = "model.safetensors"
PULLED = {WEIGHTS: MODEL, PREDICTIONS: PREDICTIONS}
"""File of an object -> its name in the layout."""


class HubError(ExplainError):
    """The hub cannot be reached, or does not let a repository be read or written."""


def push(store: PromptStore, reference: str, to: str) -> str:
    """Write one version as a folder, or to the hub.

    Args:
        store: where it is.
        reference: which version.
        to: a new or empty folder, one that holds an earlier push, or "hf:owner/name".

    Returns:
        Where it lies.

    Raises:
        InputError: a folder that holds something else.
        HubError: the hub refuses.
        IntegrityError: bytes in the store changed.
    """
    stored = store.get(reference)
    check_files(stored.folder, stored.card)
    if not to.startswith(HUB):
        folder = Path(to)
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / CARD).is_file())):
            raise InputError(f"{folder} is there already and holds something else; choose a new folder")
        write_layout(stored, folder)
        return str(folder)
    with tempfile.TemporaryDirectory() as temporary:
        write_layout(stored, Path(temporary))
        repository = to.removeprefix(HUB)
        try:
            hub = HfApi()
            hub.create_repo(repository, private=True, exist_ok=True)
            message = f"{stored.card.name} v{stored.version.number}"
            hub.upload_folder(repo_id=repository, folder_path=temporary, commit_message=message)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise _refused(repository, error) from None
    return f"https://huggingface.co/{repository}"


def pull(store: PromptStore, source: str, *, who: str | None = None) -> Stored:
    """Take in what `push` wrote, under the name on its card.

    Args:
        store: where it goes.
        source: a folder, or "hf:owner/name".
        who: for the log; None for the account.

    Raises:
        IntegrityError: a file that is not the one the card recorded.
        InputError: the version is there with other metadata, or other classes than the name's.
        HubError: the hub refuses.
    """
    folder = Path(source)
    if source.startswith(HUB):
        repository = source.removeprefix(HUB)
        try:
            folder = Path(snapshot_download(repository, allow_patterns=[CARD, MODEL, PREDICTIONS]))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise _refused(repository, error) from None
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected what `explain prompts push` wrote, or hf:owner/name")
    card = read_card(folder)
    check_name(card.name, "prompt name")
    with store.fresh_folder() as fresh:
        for file, name in PULLED.items():
            if (folder / name).is_file():  # what is missing is told by the check of hashes
                shutil.copyfile(folder / name, fresh / file)
        return store.keep(fresh, card, what="import", who=who, note=printable(source))


def write_layout(stored: Stored, folder: Path) -> None:
    """Write the files of a version into a folder; the card comes last."""
    card = stored.card
    write_atomically(folder / "README.md", lambda path: path.write_text(model_card(stored), encoding="utf-8"))
    write_json(folder / "config.json", {
        "library_name": "explain-vit", "architecture": card.backbone.architecture, "backbone": card.backbone.spec,
        "backbone_sha256": card.backbone.sha256, "image_size": card.image_size, "mean": card.backbone.mean,
        "std": card.backbone.std, "tuning": card.tuning, "tuning_options": card.tuning_options,
        "id2label": {str(index): name for index, name in enumerate(card.class_names)},
        "label2id": {name: index for index, name in enumerate(card.class_names)},
    })  # fmt: skip
    for file, name in PULLED.items():
        write_atomically(folder / name, lambda path, file=file: shutil.copyfile(stored.folder / file, path))  # type: ignore[misc]
    write_json(folder / CARD, card.model_dump(mode="json"))


def model_card(stored: Stored) -> str:
    """README.md: front matter that the hub reads, and what a person wants to know."""
    card = stored.card
    front: dict[str, Any] = {
        "library_name": "explain-vit", "license": "unknown", "pipeline_tag": "image-classification",
        "base_model": _base_model(card), "tags": ["visual-prompt-tuning", "vision-transformer", card.tuning],
        "metrics": ["accuracy"],
    }  # fmt: skip
    test = card.test
    recalls = "\n".join(f"| recall of {_literal(name)} | {value:.4f} |" for name, value in card.recall.items())
    supplied = "\n".join(f"| {_literal(name)} | {value:.6g} |" for name, value in card.metrics.items())
    rows = "\n".join(part for part in (recalls, supplied) if part)
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()}
---

# {_literal(card.name)}

{_literal(card.purpose)}

Trained weights ({card.weights_bytes:,} bytes, tuning `{card.tuning}`) for the frozen backbone `{card.backbone.spec}`
(SHA-256 `{card.backbone.sha256}`); they are of no use on another one. Owner: {_literal(card.owner)}.

| metric | value |
|---|---|
| accuracy | {test.accuracy:.4f} (95 % interval {test.low:.4f} to {test.high:.4f}, {test.count} images) |
{rows}

Classes: {", ".join(map(_literal, card.class_names))}. Trained on {_literal(card.data_name)},
recipe `{card.recipe_hash[:16]}`.

    explain prompts pull FOLDER_OR_hf:OWNER/NAME

```python
import explain

bank = explain.PromptBank({card.backbone.spec!r})
bank.predict(["image.png"], prompt={card.name!r})
```
"""


def _literal(text: str) -> str:
    """Text as Markdown that shows exactly this text, on one line."""
    return re.sub(r"([\\`*_\[\]<>#|!&~$])", r"\\\1", " ".join(text.split()))


def _base_model(card: Card) -> str:
    """The hub's name of the backbone where it comes from there, else its spec."""
    return f"timm/{card.backbone.spec}" if card.backbone.source.startswith("timm ") else card.backbone.spec


def _refused(repository: str, error: Exception) -> HubError:
    return HubError(f"the hub did not do it for {repository!r} ({type(error).__name__}: {str(error).splitlines()[0]}). "
                    "Expected hf:OWNER/NAME, a network and `hf auth login`; a folder works without")  # fmt: skip
