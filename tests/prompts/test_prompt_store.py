"""The store: versions by content, references, labels, the log, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prompt_runs import make_run

from explain.errors import InputError, IntegrityError, UnknownNameError
from explain.files import read_json, sha256_json, write_json
from explain.prompts.card import Card, check_weights
from explain.prompts.history import History, StoreBusyError, change_history
from explain.prompts.naming import check_name
from explain.prompts.store import PromptStore
from explain.training.pair import MatchedPair
from explain.training.run import Run


def test_a_version_keeps_the_runs_bytes_and_says_where_they_come_from(
    store: PromptStore, runs: dict[str, Run]
) -> None:
    run, stored = runs["deep"], store.get("line-3@v1")
    card = stored.card
    assert (stored.folder / "weights.safetensors").read_bytes() == (run.path / "weights.safetensors").read_bytes()
    assert (card.depth, card.width, card.patch_size, card.image_size) == (12, 192, (16, 16), 64)
    assert (card.backbone, card.split_hash, card.recipe) == \
        (run.manifest.backbone, run.manifest.split_hash, run.recipe.model_dump(mode="json"))  # fmt: skip
    own = run.predictions
    assert card.recall["left"] == (own.classes == 0)[own.labels == 0].mean()
    kept = stored.predictions()
    assert kept.ids == own.ids and (kept.probabilities == own.probabilities).all()


def test_a_versions_id_is_the_hash_of_its_content_and_not_of_what_people_say(store: PromptStore) -> None:
    folder = store.get("line-3@v1").folder
    content = read_json(folder / "card.json")
    for said in ("owner", "purpose", "approver", "metrics", "parent", "created"):
        del content[said]
    assert folder.name == sha256_json(content)


def test_the_same_run_again_is_the_same_version(store: PromptStore, runs: dict[str, Run]) -> None:
    before = store.history("line-3")
    again = store.add(runs["deep"], name="line-3", owner="quality", purpose="squares, camera 1", who="somebody")
    assert again.version == before.versions[0]
    assert store.history("line-3") == before


def test_a_version_follows_the_newest_one(store: PromptStore) -> None:
    first, second = store.get("line-3@v1"), store.get("line-3")
    assert first.card.parent is None and second.card.parent == first.version.id


@pytest.mark.parametrize("change", [{"owner": "somebody else"}, {"purpose": "other"}, {"metrics": {"x": 1.0}}])
def test_a_version_is_not_registered_again_with_other_metadata(
    store: PromptStore, runs: dict[str, Run], change: dict[str, object]
) -> None:
    said = {"owner": "quality", "purpose": "squares, camera 1"} | change
    with pytest.raises(InputError, match=f"versions never change.*{next(iter(change))}"):
        store.add(runs["deep"], name="line-3", **said)


def test_a_name_keeps_its_classes(store: PromptStore, runs: dict[str, Run]) -> None:
    with pytest.raises(InputError, match="2 classes apart.*the run 3.*another name"):
        store.add(runs["three"], name="line-3", owner="quality", purpose="x")


def test_a_run_that_trained_the_backbone_is_refused(store: PromptStore, tiny_pair: MatchedPair) -> None:
    with pytest.raises(InputError, match="at most 20%.*'full', which stores 100%"):
        store.add(tiny_pair.ft, name="line-9", owner="quality", purpose="x")
    assert "line-9" not in store.names()


@pytest.mark.parametrize("said", [{"owner": " ", "purpose": "x"}, {"owner": "x", "purpose": ""}])
def test_owner_and_purpose_are_needed(store: PromptStore, runs: dict[str, Run], said: dict[str, str]) -> None:
    with pytest.raises(InputError, match="owner and a purpose"):
        store.add(runs["deep"], name="line-9", **said)


@pytest.mark.parametrize("metric", [float("nan"), float("inf")])
def test_a_metric_is_finite(store: PromptStore, runs: dict[str, Run], metric: float) -> None:
    with pytest.raises(InputError, match="finite"):
        store.add(runs["deep"], name="line-9", owner="q", purpose="x", metrics={"minutes": metric})


def test_every_form_of_a_reference_finds_its_version(store: PromptStore) -> None:
    first, second = store.history("line-3").versions
    store.alias("line-3@v1", "staging")
    store.tag("line-3@v2", "audit-2026")
    found = {form: store.resolve(f"line-3{form}") for form in
             ("", "@v1", "@v2", "@staging", "@audit-2026", f"@{first.id[:8]}", f"@{second.id}")}  # fmt: skip
    assert found == {"": second, "@v1": first, "@v2": second, "@staging": first, "@audit-2026": second,
                     f"@{first.id[:8]}": first, f"@{second.id}": second}  # fmt: skip


@pytest.mark.parametrize("reference", ["line-7", "line-3@v9", "line-3@production", "line-3@0000000", "line-3@fff"])
def test_an_unknown_reference_lists_what_there_is(store: PromptStore, reference: str) -> None:
    with pytest.raises(UnknownNameError, match="known: .*line-3" if "@" not in reference else "it has v1, v2"):
        store.resolve(reference)


def test_an_ambiguous_beginning_of_an_id_is_refused(store: PromptStore) -> None:
    path = store.path / "names" / "line-3.json"
    record = read_json(path)
    for version, end in zip(record["versions"], "ab", strict=True):
        version["id"] = "abcd" + end * 60
    write_json(path, record)
    with pytest.raises(InputError, match="'line-3@abcd' could be v1 abcdaaaa.*, v2 abcdbbbb.*more digits"):
        store.resolve("line-3@abcd")


def test_labels_stay_on_versions_of_their_own_name(store: PromptStore) -> None:
    foreign = store.resolve("longer").id
    with pytest.raises(InputError, match="is a version of 'longer', not of 'line-3'"):
        store.alias(f"line-3@{foreign[:12]}", "staging")


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..", "a..b", ".hidden", "x" * 121, "with space", "a@b", "nul\0",
                                  "-option", "e\u0301", "dot."])  # fmt: skip
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected a prompt name of letters"):
        check_name(name, "prompt name")


@pytest.mark.parametrize("name", ["line-3", "Line_3.b", "検査3", "x" * 120])
def test_safe_names_are_taken(name: str) -> None:
    check_name(name, "prompt name")


@pytest.mark.parametrize("label", ["v2", "beef", "3fa9", "a/b", ""])
def test_a_label_that_could_be_a_version_is_refused(store: PromptStore, label: str) -> None:
    with pytest.raises(InputError, match="expected a (tag|alias)"):
        store.tag("line-3", label)
    with pytest.raises(InputError, match="expected a (tag|alias)"):
        store.alias("line-3", label)


def test_a_tag_never_moves_and_an_alias_does(store: PromptStore) -> None:
    store.tag("line-3@v1", "audit")
    store.tag("line-3@v1", "audit")  # again is no change
    with pytest.raises(InputError, match="on v1 and never moves"):
        store.tag("line-3@v2", "audit")
    with pytest.raises(InputError, match="is a tag"):
        store.alias("line-3@v2", "audit")
    store.alias("line-3@v1", "staging")
    store.alias("line-3@v2", "staging")
    assert store.resolve("line-3@staging").number == 2
    with pytest.raises(InputError, match="is an alias"):
        store.tag("line-3@v2", "staging")


def test_production_is_moved_by_a_promotion_only(store: PromptStore) -> None:
    with pytest.raises(InputError, match="promote line-3@v1 --to production --approver"):
        store.alias("line-3@v1", "production")


def test_a_rollback_goes_back_one_by_one_and_is_logged(store: PromptStore, runs: dict[str, Run]) -> None:
    store.add(runs["longer"], name="line-3", owner="quality", purpose="x")
    for version in ("v1", "v2", "v3"):
        store.alias(f"line-3@{version}", "staging", who="ken")
    assert store.rollback("line-3", "staging", who="mei").number == 2
    assert store.rollback("line-3", "staging", who="mei").number == 1
    last = store.history("line-3").log[-1]
    first, second = (version.id for version in store.history("line-3").versions[:2])
    assert (last.who, last.what, last.label, last.before, last.after) == ("mei", "rollback", "staging", second, first)
    with pytest.raises(InputError, match="only ever pointed at v1"):
        store.rollback("line-3", "staging")
    with pytest.raises(InputError, match="does not exist"):
        store.rollback("line-3", "nowhere")
    assert store.verify() == []


def test_the_log_tells_who_did_what_when(store: PromptStore) -> None:
    store.alias("line-3@v1", "staging", who="ken")
    store.alias("line-3@v2", "staging", who="mei")
    first, second = (version.id for version in store.history("line-3").versions)
    log = store.history("line-3").log
    assert [(entry.who, entry.what, entry.before, entry.after) for entry in log] == [
        ("aiko", "add", None, first), ("aiko", "add", None, second), ("ken", "alias", None, first),
        ("mei", "alias", first, second)]  # fmt: skip
    assert all(entry.when.endswith("+00:00") for entry in log)


def test_a_whole_store_verifies(store: PromptStore) -> None:
    store.tag("line-3@v1", "audit")
    store.alias("line-3@v1", "staging")
    assert store.verify() == []


@pytest.mark.parametrize("file", ["weights.safetensors", "predictions.safetensors"])
def test_changed_bytes_are_found_and_not_used(store: PromptStore, file: str) -> None:
    path = store.get("line-3@v1").folder / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    [problem] = store.verify()
    assert problem.startswith("line-3@v1: ") and file in problem and "recorded with hash" in problem
    with pytest.raises(IntegrityError, match=file):
        store.get("line-3@v1").tensors()


def test_a_missing_file_and_a_missing_card_are_found(store: PromptStore) -> None:
    (store.get("line-3@v1").folder / "weights.safetensors").unlink()
    (store.get("line-3@v2").folder / "card.json").unlink()
    problems = store.verify()
    assert len(problems) == 2 and "weights.safetensors" in problems[0] and "card.json is missing" in problems[1]


@pytest.mark.parametrize(("field", "value"), [("owner", "mallory"), ("width", 384), ("unknown", 1), ("depth", "x")])
def test_a_changed_card_is_found(store: PromptStore, field: str, value: object) -> None:
    path = store.get("line-3@v1").folder / "card.json"
    write_json(path, read_json(path) | {field: value})
    [problem] = store.verify()
    assert problem.startswith("line-3@v1: ") and "card.json" in problem
    with pytest.raises(IntegrityError):
        store.get("line-3@v1")


def test_a_log_line_that_was_altered_or_taken_out_is_found(store: PromptStore) -> None:
    store.alias("line-3@v1", "staging", who="ken")
    store.alias("line-3@v2", "staging", who="mei")
    path = store.path / "names" / "line-3.json"
    whole = read_json(path)
    for log in ([*whole["log"][:2], {**whole["log"][2], "who": "mallory"}, whole["log"][3]],
                [*whole["log"][:2], whole["log"][3]]):  # fmt: skip
        write_json(path, whole | {"log": log})
        assert "names/line-3.json: line" in store.verify()[0]
    write_json(path, whole | {"aliases": {"staging": whole["versions"][0]["id"]}})
    assert store.verify() == ["names/line-3.json: tags or aliases are not what the log says"]
    write_json(path, whole | {"criteria": ["accuracy >= 0"]})
    assert store.verify() == ["names/line-3.json: the criteria are not those the log says"]
    path.write_text("{", encoding="utf-8")
    assert "not valid JSON" in store.verify()[0]


@pytest.mark.parametrize(("change", "message"), [
    ({"depth": 11}, "depth 11, the weights hold prompts for block 11"),
    ({"width": 384}, "width 384, .* is 192 wide"),
    ({"class_names": ("a", "b", "c")}, "names 3 classes, the head has 2"),
])  # fmt: skip
def test_weights_of_another_depth_width_or_class_count_are_refused(
    filled: PromptStore, change: dict[str, object], message: str
) -> None:
    stored = filled.get("line-3@v1")
    check_weights(stored.card, stored.tensors())
    with pytest.raises(IntegrityError, match=message):
        check_weights(stored.card.model_copy(update=change), stored.tensors())


def test_weights_that_are_not_finite_are_refused(filled: PromptStore) -> None:
    stored = filled.get("line-3@v1")
    tensors = stored.tensors()
    tensors["vit.head.bias"][0] = float("nan")
    with pytest.raises(IntegrityError, match="vit.head.bias holds NaN"):
        check_weights(stored.card, tensors)


def test_what_a_stopped_command_left_over_does_no_harm(store: PromptStore, runs: dict[str, Run]) -> None:
    empty = PromptStore(store.path.parent / "empty")
    id = store.resolve("line-3@v1").id
    shutil.copytree(store.objects / id, empty.objects / id)
    (empty.objects / id / "weights.safetensors").write_bytes(b"cut short")
    assert (empty.names(), empty.verify()) == ([], [])
    assert empty.add(runs["deep"], name="line-3", owner="q", purpose="x").version.id == id
    assert empty.verify() == []
    assert [path.name for path in empty.objects.iterdir()] == [id]


def test_two_processes_lose_no_entry(store: PromptStore) -> None:
    code = """
import sys
from pathlib import Path
from explain.prompts.history import change_history
who, folder = sys.argv[2], Path(sys.argv[1]) / "names"
def tag(label):
    def change(history):
        id = history.versions[0].id
        history = history.model_copy(update={"tags": history.tags | {label: id}})
        return history.with_entry("tag", who=who, label=label, after=id)
    change_history(folder, "line-3", change)
for index in range(25):
    tag(f"{who}-{index}")
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([sys.executable, "-c", code, str(store.path), who], env=environment)
               for who in ("one", "two")]  # fmt: skip
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    history = store.history("line-3")
    assert sorted(history.tags) == sorted(f"{who}-{index}" for who in ("one", "two") for index in range(25))
    assert [sum(entry.who == who for entry in history.log) for who in ("one", "two")] == [25, 25]
    assert store.verify() == []


def test_a_name_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explain.prompts.history.LOCK_WAIT_S", 0.05)

    def inner(_: History | None) -> History:
        return change_history(tmp_path, "line-3", lambda history: history or History(name="line-3"))

    with pytest.raises(StoreBusyError, match="locked"):
        change_history(tmp_path, "line-3", inner)


def test_the_store_is_json_and_safetensors_only(store: PromptStore) -> None:
    files = [path for path in store.path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    card = json.loads((store.get("line-3").folder / "card.json").read_text(encoding="utf-8"))
    assert Card.model_validate(card) == store.get("line-3").card


def test_a_run_whose_files_changed_is_not_registered(
    tiny_pair: MatchedPair, store: PromptStore, tmp_path: Path
) -> None:
    run = make_run(tiny_pair.vpt, tmp_path / "run", num_tokens=2)
    (run.path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="changed since training"):
        store.add(run.path, name="line-9", owner="q", purpose="x")
