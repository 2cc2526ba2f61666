"""What code a stage consists of: every file of the package that its module reaches by import, hashed by meaning.

Comments, docstrings and layout do not count, so polishing a text never costs anybody a training.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from timer1lib.ideas import meaning

_meaning = lru_cache(maxsize=1024)(meaning)

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
        for name in _imports(path.read_text(), (package.name, *path.relative_to(package).parent.parts)):
            if name.partition(".")[0] not in _NO_RESULT:
                waiting += _files_of(package, name)
    return sorted(seen)


def code_hash(package: Path, module: str, *, inside: str = "") -> str:
    """One digest for the whole closure of a module, or for the part of it in one folder of the package."""
    digest = hashlib.sha256()
    for path in closure(package, module):
        if path.is_relative_to(package / inside):
            digest.update(f"{path.relative_to(package).as_posix()}\0{_meaning(path.read_text())}\0".encode())
    return digest.hexdigest()


def _files_of(package: Path, module: str) -> list[Path]:
    """The module's file and the `__init__` of every package above it; nothing where it is no module of the package."""
    parts = module.split(".")
    target = package.joinpath(*parts)
    own = next((path for path in (target.with_suffix(".py"), target / "__init__.py") if path.is_file()), None)
    above = [package.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts))]
    return [own, *(path for path in above if path.is_file())] if own else []


@lru_cache(maxsize=1024)
def _imports(source: str, here: tuple[str, ...]) -> list[str]:
    """Dotted names inside the package that a file in folder `here` imports; `from a import b` gives both `a` and `a.b`."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    prefix = here[0] + "."
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
