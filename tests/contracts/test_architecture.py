"""The shape of the code: imports run one way, plug-ins do not know each other, each library has its place."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from forbidden_calls import RUNS_WHAT_IT_READS, forbidden

ROOT = Path(__file__).parents[2]

FLOORS: list[set[str]] = [
    {"app"},
    {"explain.cli"},
    {"explain.cli_evaluate", "explain.cli_planted", "explain.cli_archive", "explain.cli_view", "explain.cli_declare",
     "explain.cli_report"},
    {"explain.cli_train", "explain.cli_prompts"},
    {"explain.console", "explain.demo", "app.server", "app.passwords"},  # a command line starts the viewer
    {"explain.report", "explain.export"},
    {"explain.render"},
    {"explain.prompts"},
    {"explain.evidence", "explain.batch"},
    {"explain.metrics", "explain.decision"},
    {"explain.engine", "explain.training"},
    {"explain.criteria"},
    {"explain.archive", "explain.reviews"},
    {"explain.methods", "explain.tuning", "explain.data"},
    {"explain.wrapping"},
    {"explain.convolutional"},
    {"explain.model", "explain.baselines"},
    {"explain.backbone"},
    {"explain.img_focus"},
    {"explain.attribution"},
    {"explain.path"},
    {"explain.trace", "explain.prompted_block"},
    {"explain.attention", "explain.passes", "explain.replica"},
    {"explain.tokens"},
    {"explain.wheel", "explain.tensor_files", "explain.backbone_card", "explain.plain_yaml", "explain.software"},
    {
        "explain.files",
        "explain.record",
        "explain.registry",
        "explain.i18n",
        "explain.provenance",
        "explain.quadrature",
        "explain.metrics.statistics",
    },
    {"explain.errors"},
]
"""From the roof down: a room may import itself and the rooms of every floor below its own, none beside it."""

ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


FILES = python_files("explain", "app")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The room a module or a name in it belongs to; None for the package itself and its lazy names."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in ROOMS), None)


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """(absolute module, line) of every import, also inside functions; `if TYPE_CHECKING:` is not run and left out."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree_of(path)):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def ours(path: Path) -> list[tuple[str, int]]:
    return [(name, line) for name, line in imports_of(path) if name.split(".")[0] in {"explain", "app"}]


def is_plugin(path: Path) -> bool:
    return any(
        isinstance(node, ast.ClassDef) and any(".register(" in ast.unparse(mark) for mark in node.decorator_list)
        for node in tree_of(path).body
    )


def test_every_file_is_in_a_known_room() -> None:
    assert [module_of(path) for path in FILES if room_of(module_of(path)) is None] == ["explain"]


def test_imports_go_down_only() -> None:
    wrong = []
    for path in FILES:
        here = room_of(module_of(path))
        for name, line in ours(path):
            there = room_of(name)
            public_api = there is None and here == "app"  # `import explain`, as any user of the toolkit
            if not public_api and here != there and (there is None or here is None or ROOMS[there] <= ROOMS[here]):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_the_package_itself_imports_nothing_of_ours_until_asked() -> None:
    assert ours(ROOT / "explain/__init__.py") == []


def test_no_plugin_imports_another() -> None:
    plugins = {module_of(path): path for path in FILES if is_plugin(path)}
    assert {"explain.methods.grad_cam", "explain.tuning.prompt", "explain.data.image_folder"} <= plugins.keys()
    wrong = [
        f"{here} imports {name}"
        for here, path in plugins.items()
        for name, _ in ours(path)
        if any(name == other or name.startswith(f"{other}.") for other in plugins.keys() - {here})
    ]
    assert wrong == []


def test_nobody_outside_its_folder_imports_a_plugin() -> None:
    """A plug-in is reached by its name in the registry, so taking the file away breaks nothing else."""
    plugins = {module_of(path) for path in FILES if is_plugin(path)}
    wrong = [
        f"{module_of(path)}:{line} imports {name}"
        for path in FILES
        for name, line in ours(path)
        if any(name == plugin or name.startswith(f"{plugin}.") for plugin in plugins)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "place"),
    [("streamlit", "app/"), ("typst", "explain/report/pdf.py"), ("ray", "explain/batch/ray.py"),
     ("accelerate", "explain/training/"), ("onnx", "explain/img_focus.py")],
)  # fmt: skip
def test_a_library_has_one_place(library: str, place: str) -> None:
    users = {
        str(path.relative_to(ROOT)) for path in FILES for name, _ in imports_of(path) if name.split(".")[0] == library
    }
    assert [user for user in users if not user.startswith(place)] == []


def test_no_blind_except_no_pickle_no_eval() -> None:
    wrong = [f"{path.relative_to(ROOT)}:{fault}" for path in FILES for fault in forbidden(path.read_text("utf-8"))]
    wrong += [f"{path.relative_to(ROOT)}:{fault}" for path in python_files("benchmarks")
              for fault in forbidden(path.read_text("utf-8"), only=RUNS_WHAT_IT_READS)]  # fmt: skip
    assert wrong == []


def test_attention_is_reached_into_by_one_file() -> None:
    users = [str(path.relative_to(ROOT)) for path in FILES
             if "scaled_dot_product_attention" in path.read_text(encoding="utf-8")]  # fmt: skip
    assert users == ["explain/attention.py"]


def test_tokens_are_sliced_by_one_file() -> None:
    """`[:, 1:]` on tokens is how prompts, registers and distillation tokens end up in a picture."""
    slicing = re.compile(r"(tokens|features|attention|sequence)\[:, *-?\w*:")
    users = {str(path.relative_to(ROOT)) for path in FILES if slicing.search(path.read_text(encoding="utf-8"))}
    assert users == {"explain/tokens.py", "explain/attention.py"}  # the latter takes the first rows, whatever they are


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = re.compile(r"(utils?|helpers?|common|misc|manager|handler|tools?)$")
    names = [*FILES, *python_files("tests", "benchmarks")]
    assert [str(path) for path in names if empty.search(path.stem) or empty.search(path.parent.name)] == []


def test_every_module_says_what_it_is() -> None:
    assert [module_of(path) for path in FILES if tree_of(path).body and not ast.get_docstring(tree_of(path))] == []
