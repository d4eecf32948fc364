"""What no source file may do: run code or programs from data, decode input unsafely, swallow errors it does not know.

Names are followed through imports, so `from torch import load as fetch` and `fetch(...)` is still `torch.load`.
"""

import ast
from collections.abc import Iterator

RUNS_WHAT_IT_READS = frozenset({"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle",
                                "ray.cloudpickle", "jsonpickle", "pandas.read_pickle", "torch.package"})  # fmt: skip
UNPACKS_WITHOUT_LIMITS = frozenset({"tarfile", "shutil.unpack_archive"})
IMPORTS = RUNS_WHAT_IT_READS | UNPACKS_WITHOUT_LIMITS
"""Modules and names that are not imported at all, nor anything inside them."""

CALLS = frozenset({
    "eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec",
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.export.load",
    "numpy.load",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "multiprocessing.Pool", "multiprocessing.pool.Pool",
    "cv2.imread", "cv2.imreadmulti", "cv2.imdecode", "cv2.imdecodemulti", "cv2.VideoCapture",
    "torchvision.io.read_image", "torchvision.io.decode_image", "tempfile.mktemp",
})  # fmt: skip
METHODS = frozenset({"extractall", "read_pickle", "to_pickle"})
"""Methods, whatever they are called on."""

KEYWORDS = frozenset({"trust_remote_code", "allow_pickle"})
"""Arguments that are not passed, neither by name nor as a key of a mapping."""


def forbidden(source: str, *, only: frozenset[str] | None = None) -> list[str]:
    """What a source does that it may not, each as "line: what".

    Args:
        source: text of a Python file.
        only: imports looked for, and nothing else; None for everything above.
    """
    tree = ast.parse(source)
    known = _names(tree)
    found: list[tuple[int, str]] = [
        (node.lineno, f"imports {name}")
        for node in ast.walk(tree)
        for name in _imported(node)
        if _is_inside(name, IMPORTS if only is None else only)
    ]
    if only is None:
        for node in ast.walk(tree):
            found += [(getattr(node, "lineno", 0), what) for what in _faults(node, known)]
    return [f"{line}: {what}" for line, what in sorted(set(found))]


def _faults(node: ast.AST, known: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.ExceptHandler):
        caught = set() if node.type is None else {_dotted(part, known) for part in _members(node.type)}
        if node.type is None or caught & {"Exception", "builtins.Exception"}:
            yield "catches every exception"
    elif isinstance(node, ast.Attribute | ast.Name) and _is_inside(_dotted(node, known), IMPORTS):
        yield f"uses {_dotted(node, known)}"
    elif isinstance(node, ast.Dict):
        constants = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        yield from (f"passes {value}" for value in constants if value in KEYWORDS)
    elif isinstance(node, ast.Call):
        name = _dotted(node.func, known)
        if name in CALLS or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
            yield f"calls {name}"
        for keyword in node.keywords:
            if keyword.arg in KEYWORDS:
                yield f"passes {keyword.arg}"
            if keyword.arg == "shell" and ast.unparse(keyword.value) != "False":
                yield "starts a shell"


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _names(tree: ast.Module) -> dict[str, str]:
    """Name in the file -> what it stands for, by its imports."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def _dotted(node: ast.expr, known: dict[str, str]) -> str:
    """`np.load` as "numpy.load"; what is no name as its source."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, known)}.{node.attr}"
    return ast.unparse(node)


def _members(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _is_inside(name: str, modules: frozenset[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
