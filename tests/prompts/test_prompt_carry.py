"""Carrying prompts between stores: exports, imports, and the hub's layout."""

import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError

from explain.errors import InputError, IntegrityError
from explain.files import read_json, sha256_file, write_json
from explain.prompts import hub
from explain.prompts.hub import HubError, pull, push
from explain.prompts.parcel import export, import_parcel
from explain.prompts.store import PromptStore


@pytest.fixture
def empty(tmp_path: Path) -> PromptStore:
    return PromptStore(tmp_path / "elsewhere")


@pytest.mark.parametrize("out", ["line-3.zip", "folder"])
def test_a_name_arrives_with_all_its_history(store: PromptStore, empty: PromptStore, tmp_path: Path, out: str) -> None:
    store.alias("line-3@v1", "staging", who="ken")
    store.tag("line-3@v2", "audit")
    path = export(store, "line-3", tmp_path / out)
    arrived = import_parcel(empty, path, who="mei")
    there, here = store.history("line-3"), empty.history("line-3")
    assert [one.version for one in arrived] == list(there.versions)
    assert (here.versions, here.tags, here.aliases) == (there.versions, there.tags, there.aliases)
    assert here.log[:-1] == there.log and (here.log[-1].what, here.log[-1].who) == ("import", "mei")
    assert empty.verify() == [] and empty.names() == ["line-3"]
    assert (empty.get("line-3").folder / "weights.safetensors").read_bytes() == \
        (store.get("line-3").folder / "weights.safetensors").read_bytes()  # fmt: skip


def test_equal_content_makes_an_equal_archive(store: PromptStore, tmp_path: Path) -> None:
    first, second = (sha256_file(export(store, "line-3", tmp_path / name)) for name in ("a.zip", "b.zip"))
    assert first == second


def test_into_a_store_that_knows_the_name_come_versions_but_no_aliases(
    store: PromptStore, empty: PromptStore, tmp_path: Path
) -> None:
    import_parcel(empty, export(store, "line-3", tmp_path / "first.zip"))
    empty.alias("line-3@v1", "staging")
    store.alias("line-3@v2", "staging")
    store.add(_longer(store), name="line-3", owner="q", purpose="x")
    arrived = import_parcel(empty, export(store, "line-3", tmp_path / "second.zip"))
    assert [one.version.number for one in arrived] == [1, 2, 3]
    assert empty.resolve("line-3").id == store.resolve("line-3").id
    assert empty.resolve("line-3@staging").number == 1
    assert empty.verify() == []
    before = empty.history("line-3")
    import_parcel(empty, tmp_path / "second.zip")
    assert empty.history("line-3") == before  # nothing new came


@pytest.mark.parametrize("member", ["../outside.json", "/etc/cron.d/x", "names/../../x.json", "objects/x/card.json",
                                    "names/a/b.json", "names\\..\\x.json", "readme.txt"])  # fmt: skip
def test_an_archive_whose_paths_leave_the_folder_is_refused(
    store: PromptStore, empty: PromptStore, tmp_path: Path, member: str
) -> None:
    path = export(store, "line-3", tmp_path / "line-3.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "x")
    with pytest.raises(IntegrityError, match="nothing was taken in"):
        import_parcel(empty, path)
    assert empty.names() == [] and list(empty.objects.iterdir()) == []
    assert not list(tmp_path.rglob("outside.json"))


def test_an_archive_with_changed_bytes_is_refused(store: PromptStore, empty: PromptStore, tmp_path: Path) -> None:
    folder = export(store, "line-3", tmp_path / "folder")
    weights = folder / "objects" / store.resolve("line-3@v2").id / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(IntegrityError, match="is damaged, nothing was taken in: line-3@v2: .*recorded with hash"):
        import_parcel(empty, folder)
    assert empty.names() == []


def test_a_linked_file_is_refused(store: PromptStore, empty: PromptStore, tmp_path: Path) -> None:
    folder = export(store, "line-3", tmp_path / "folder")
    (folder / "names" / "secret.json").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="is a link"):
        import_parcel(empty, folder)


def test_a_file_that_unpacks_to_too_much_is_refused(
    store: PromptStore, empty: PromptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(store, "line-3", tmp_path / "line-3.zip")
    monkeypatch.setattr("explain.prompts.parcel.MAX_FILE_BYTES", 1000)
    with pytest.raises(IntegrityError, match="larger than 1,000 bytes"):
        import_parcel(empty, path)


def test_what_is_no_export_is_refused(store: PromptStore, empty: PromptStore, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "nothing").mkdir()
    for source, error, told in (("text.zip", IntegrityError, "not a readable zip"), ("nothing", IntegrityError,
                                "holds no prompt"), ("absent.zip", InputError, "there is no")):  # fmt: skip
        with pytest.raises(error, match=told):
            import_parcel(empty, tmp_path / source)
    with pytest.raises(InputError, match="all its versions"):
        export(store, "line-3@v1", tmp_path / "a.zip")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        export(store, "line-3", tmp_path / "full")


def test_a_damaged_version_is_not_exported(store: PromptStore, tmp_path: Path) -> None:
    (store.get("line-3@v1").folder / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(IntegrityError, match="recorded with hash"):
        export(store, "line-3", tmp_path / "line-3.zip")
    assert not (tmp_path / "line-3.zip").exists()


def test_a_push_has_the_layout_of_a_model_repository(store: PromptStore, tmp_path: Path) -> None:
    stored, folder = store.get("line-3@v1"), Path(push(store, "line-3@v1", str(tmp_path / "pushed")))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "card.json", "config.json", "model.safetensors", "predictions.safetensors"]  # fmt: skip
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert (front["library_name"], front["license"], front["base_model"]) == \
        ("explain-vit", "unknown", "random:vit_tiny_patch16_224")  # fmt: skip
    assert "visual-prompt-tuning" in front["tags"]
    assert stored.card.purpose in text and stored.card.backbone.sha256 in text
    config = read_json(folder / "config.json")
    assert config["id2label"] == {"0": "left", "1": "right"} and config["tuning_options"]["num_tokens"] == 3
    assert sha256_file(folder / "model.safetensors") == stored.card.files["weights.safetensors"]


def test_a_pull_gives_the_version_that_was_pushed(store: PromptStore, empty: PromptStore, tmp_path: Path) -> None:
    folder = push(store, "line-3@v1", str(tmp_path / "pushed"))
    pulled = pull(empty, folder, who="mei")
    assert pulled.version.id == store.resolve("line-3@v1").id
    assert empty.verify() == []
    assert pull(empty, folder).version == pulled.version  # again is no change
    assert push(store, "line-3@v2", folder) == folder
    assert pull(empty, folder).version.number == 2


@pytest.mark.parametrize("file", ["model.safetensors", "predictions.safetensors", "card.json"])
def test_a_pull_of_changed_files_is_refused(
    store: PromptStore, empty: PromptStore, tmp_path: Path, file: str
) -> None:
    folder = Path(push(store, "line-3@v1", str(tmp_path / "pushed")))
    if file == "card.json":
        card = read_json(folder / file)
        write_json(folder / file, card | {"files": card["files"] | {"weights.safetensors": "0" * 64}})
    else:
        (folder / file).unlink()
    with pytest.raises(IntegrityError, match="recorded with hash"):
        pull(empty, str(folder))
    assert empty.names() == []


def test_a_pull_of_what_is_there_with_another_owner_is_refused(store: PromptStore, tmp_path: Path) -> None:
    folder = Path(push(store, "line-3@v1", str(tmp_path / "pushed")))
    write_json(folder / "card.json", read_json(folder / "card.json") | {"owner": "somebody"})
    with pytest.raises(InputError, match="versions never change.*owner"):
        pull(store, str(folder))


def test_a_push_never_overwrites_something_else(store: PromptStore, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("x")
    with pytest.raises(InputError, match="holds something else"):
        push(store, "line-3", str(tmp_path / "full"))
    with pytest.raises(InputError, match="there is no folder"):
        pull(store, str(tmp_path / "absent"))


def test_the_hub_gets_and_gives_the_same_files(
    store: PromptStore, empty: PromptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Api:
        def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
            assert (repository, private) == ("factory/line-3", True)

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            shutil.copytree(folder_path, tmp_path / "hub")

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", lambda repository, **_: str(tmp_path / "hub"))
    assert push(store, "line-3@v1", "hf:factory/line-3") == "https://huggingface.co/factory/line-3"
    assert pull(empty, "hf:factory/line-3").version.id == store.resolve("line-3@v1").id


def test_a_hub_that_refuses_is_told_in_one_line(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("no network\nsecond line")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(HubError, match=r"'factory/line-3' \(OSError: no network\)"):
        pull(store, "hf:factory/line-3")
    assert issubclass(HfHubHTTPError, OSError)


def _longer(store: PromptStore) -> Path:
    """The run folder that "longer" was registered from, as its log says."""
    return Path(store.history("longer").log[0].notes[0])
