"""What code a stage consists of: every file of the package that its module reaches by import, hashed by meaning.

Comments, docstrings and layout do not count, so polishing a text never costs anybody a training.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_NO_RESULT = ("params", "progress", "runs", "workers")
"""Left out: parameter models, whose values are in the key already, what shows how far a stage is, and what runs it."""


def closure(package: Path, module: str) -> list[Path]:
    """Files of `package` that `module` (dotted, without the package's name) reaches by import, itself included.

    Imports inside functions count, as heavy packages and their users are imported late.
    """
    seen: set[Path] = set()
    waiting = _files_of(package, module)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _imports(path, package):
            if name.partition(".")[0] not in _NO_RESULT:
                waiting += _files_of(package, name)
    return sorted(seen)


def code_hash(package: Path, module: str, *, inside: str = "") -> str:
    """One digest for the whole closure of a module, or for the part of it in one folder of the package."""
    digest = hashlib.sha256()
    for path in closure(package, module):
        if path.is_relative_to(package / inside):
            digest.update(f"{path.relative_to(package).as_posix()}\0{meaning(path.read_text())}\0".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def meaning(source: str) -> str:
    """A digest of Python code that comments, docstrings and layout do not change; the text's own where it is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return hashlib.sha256(source.encode()).hexdigest()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [child for child in node.body if not _is_text(child)] or [ast.Pass()]
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()


def _plain(node: object) -> object:
    """A tree as nested tuples without what is empty: fields that another Python knows besides change nothing."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node)]
        return (type(node).__name__, *((name, value) for name, value in fields if value not in (None, ())))
    if isinstance(node, list):
        return tuple(_plain(item) for item in node)
    return None if node is None else repr(node)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _files_of(package: Path, module: str) -> list[Path]:
    """The module's file and the `__init__` of every package above it; nothing where it is no module of the package."""
    parts = module.split(".")
    target = package.joinpath(*parts)
    own = next((path for path in (target.with_suffix(".py"), target / "__init__.py") if path.is_file()), None)
    above = [package.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts))]
    return [own, *(path for path in above if path.is_file())] if own else []


def _imports(path: Path, package: Path) -> list[str]:
    """Dotted names inside the package that a file imports; `from a import b` gives both `a` and `a.b`."""
    try:
        tree = ast.parse(path.read_text())
    except SyntaxError:
        return []
    prefix = package.name + "."
    here = (package.name, *path.relative_to(package).parent.parts)
    names: list[str] = []
    for node in _run(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`, which are for types alone and never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _run(node)
