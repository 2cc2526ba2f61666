"""Ideas of one's own: a function in a file, named as `ideas/edges.py:edge_iou`, or written in a notebook's cell.

What an idea is known by is the meaning of its source: the function, and what it uses of its file. An edit of it makes the
stages that use it run again; an edit beside it, of a comment or of the layout, does not.
"""

from __future__ import annotations

import ast
import builtins
import dis
import hashlib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from timer1lib.errors import Timer1Error, did_you_mean, shown
from timer1lib.files import resolve


@dataclass(frozen=True, slots=True)
class Idea:
    """What a person brings: a function, or what else a file names. `name` is what tables and curves call it."""

    reference: str
    name: str
    function: Any
    identity: str
    """Digest of its meaning, and of what it uses of its file."""


def is_reference(text: str) -> bool:
    """Whether a text names a function in a file: `ideas/edges.py:edge_iou`."""
    return ".py:" in text


def find(reference: str, what: str) -> Idea:
    """What `path.py:name` names, as a `what`.

    The file's top level is run, once for its content; it is the user's own and named by the user.

    Raises:
        Timer1Error: no such file or name, a file that cannot be run.
    """
    place, _, name = map(str.strip, reference.rpartition(":"))
    try:
        path = resolve(place)
        source = path.read_text()
    except (OSError, ValueError, RuntimeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise Timer1Error(f"{what} {shown(reference)}: {shown(place)}: {why}") from None
    names = _run(path, source, what)
    if name not in names:
        hint = did_you_mean(name, [key for key, value in names.items() if callable(value)])
        raise Timer1Error(f"{what} {reference}: {place} has no {name!r}{f'; {hint}' if hint else ''}")
    return Idea(reference, name, names[name], meaning(needed(source, name)))


def load(reference: str, what: str) -> Idea:
    """`find`, where it is a function of one argument; a Timer1Error where it is not."""
    idea = find(reference, what)
    check_takes(idea.function, 1, f"{what} {reference}")
    return idea


def check_takes(function: Any, count: int, who: str) -> None:
    """Whether it is a function that takes `count` arguments (1 or 2); a Timer1Error where it is not."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        number = "one argument" if count == 1 else "two arguments"
        raise Timer1Error(f"{who}: must be a function that takes {number}; see docs/ideas.md") from None


def identity(reference: str) -> str:
    """`Idea.identity` of a reference without running its file; the text itself where the file is gone or no Python."""
    place, _, name = map(str.strip, reference.rpartition(":"))
    try:
        return meaning(needed(resolve(place).read_text(), name))
    except (OSError, ValueError, SyntaxError):
        return reference


_FILES: dict[tuple[Path, str], dict[str, Any]] = {}
"""What files that were run hold, by path and content: a second parameter that names the same file does not run it again."""


def _run(path: Path, source: str, what: str) -> dict[str, Any]:
    key = path.resolve(), hashlib.sha256(source.encode()).hexdigest()
    if key not in _FILES:
        module = ModuleType(path.stem)
        module.__file__ = str(path)
        try:
            exec(compile(source, str(path), "exec"), module.__dict__)
        except Exception as error:
            line = _line_of(error, path)
            raise Timer1Error(f"{what} {path}{line}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        _FILES[key] = module.__dict__
    return _FILES[key]


def _line_of(error: BaseException, path: Path) -> str:
    """Where in an idea's own file an error came from: `, line 12`."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f", line {lines[-1]}" if lines else ""


def call(idea: Idea, argument: Any, what: str, where: str) -> Any:
    """What an idea's function gives; where it raises a Timer1Error names it as a `what`, the line of its file, and `where`."""
    return attempt(idea.function, (argument,), f"{what} {idea.reference}", where)


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...], who: str, where: str) -> Any:
    """What a person's function gives; where it raises a Timer1Error names `who`, the line of its file, and `where`."""
    try:
        return function(*arguments)
    except Exception as error:
        code = getattr(function, "__code__", None)
        line = _line_of(error, Path(code.co_filename)) if code else ""
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise Timer1Error(f"{who}{line}: {said}; {where}") from error


def number(value: Any, who: str, where: str) -> float:
    """What an idea gave, as a finite number; a Timer1Error where it is none."""
    if isinstance(value, str) or not hasattr(value, "__float__") or not math.isfinite(found := float(value)):
        raise Timer1Error(f"{who} gives {shown(value)}, no number, {where}")
    return found


# ----------------------------------------------------------------------------------------------------------- what code means


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


def needed(source: str, name: str) -> str:
    """The statements of a file's top level that define `name` and whatever they use, in order.

    A statement that binds no name (a loop, a call) counts always: nobody can say what it does to the others.
    """
    statements = ast.parse(source).body
    binds = [set(_bound(node)) for node in statements]
    taken: set[int] = {i for i, names in enumerate(binds) if not names and not _is_text(statements[i])}
    wanted = [name, *(used for i in taken for used in _used(statements[i]))]
    seen: set[str] = set()
    while wanted:
        if (each := wanted.pop()) in seen:
            continue
        seen.add(each)
        for i, names in enumerate(binds):
            if each in names and i not in taken:
                taken.add(i)
                wanted += _used(statements[i])
    return "\n".join(ast.unparse(statements[i]) for i in sorted(taken))


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a statement gives a meaning to."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        yield from (part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store))


def _used(node: ast.AST) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


# ------------------------------------------------------------------------------------------------------------ from a cell


def written_out(function: Any, name: str, what: str) -> str:
    """A file's text in which `name` is a notebook's function, or a form of such, with everything that it uses of the notebook.

    Raises:
        Timer1Error: no source is known, or it uses something of the notebook that cannot be written down (a model, a table).
    """
    parts: dict[str, str] = {}
    if _is_ours(function):
        own = name
        _keep(name, function, name, what, parts)
    else:
        own = _write(function, name, what, parts)
    text = "\n\n\n".join(["from __future__ import annotations", *parts.values()])
    return text + ("\n" if own == name else f"\n\n\n{name} = {own}\n")


def _write(function: Any, name: str, what: str, parts: dict[str, str]) -> str:
    """Put a function's source and what it uses into `parts`; the name under which it stands there."""
    if not isinstance(function, FunctionType):
        raise Timer1Error(f"{what} {name!r}: must be a function (given {shown(function)})")
    try:
        source = textwrap.dedent("".join(inspect.getsourcelines(function)[0]))
    except (OSError, TypeError):
        raise Timer1Error(f"{what} {name!r}: its source is not known; write it as a function in a cell or a file") from None
    if function.__closure__:
        raise Timer1Error(f"{what} {name!r}: it is made inside another function; write it at the top of a cell or file")
    own = name if function.__name__ == "<lambda>" else function.__name__
    parts[own] = ""  # a function may call itself
    globals_ = function.__globals__
    for used in [*_names_of(function.__code__), *_names_around(source)]:
        if used in globals_ and used not in parts:
            _keep(used, globals_[used], name, what, parts)
        elif used not in globals_ and not hasattr(builtins, used):
            raise Timer1Error(f"{what} {name!r} uses {used!r}, which is not there")
    text = f"{name} = {_lambda(source, function, name, what)}" if own == name and function.__name__ == "<lambda>" else source
    del parts[own]  # after what it uses
    parts[own] = text.strip()
    return own


def _is_ours(value: Any) -> bool:
    """Whether it is made of a class of this package that holds functions: an `OwnForm`."""
    return is_dataclass(value) and not isinstance(value, type) and type(value).__module__.startswith("timer1lib.")


def _made(used: str, value: Any, what: str, parts: dict[str, str]) -> str:
    """The call that makes such a value anew; the functions in it go into `parts`."""
    given = []
    for each in fields(value):
        part = getattr(value, each.name)
        if isinstance(part, FunctionType):
            name = f"{used}_{each.name}" if part.__name__ == "<lambda>" else part.__name__
            given.append(f"{each.name}={_write(part, name, what, parts)}")
        elif not _is_plain(part):
            raise Timer1Error(f"{what} {used!r}: its {each.name} cannot be written into a file; give it as a function or text")
        elif part != each.default:
            given.append(f"{each.name}={part!r}")
    kind = type(value)
    parts[kind.__name__] = f"from {kind.__module__} import {kind.__name__}"
    return f"{kind.__name__}({', '.join(given)})"


def _keep(used: str, value: Any, name: str, what: str, parts: dict[str, str]) -> None:
    if _is_ours(value):
        parts[used] = f"{used} = {_made(used, value, what, parts)}"
    elif isinstance(value, ModuleType):
        parts[used] = f"import {value.__name__}" + ("" if value.__name__ == used else f" as {used}")
    elif getattr(value, "__module__", "__main__") not in ("__main__", None) and hasattr(value, "__name__"):
        renamed = "" if value.__name__ == used else f" as {used}"
        parts[used] = f"from {value.__module__} import {value.__name__}{renamed}"
    elif isinstance(value, FunctionType):
        if (own := _write(value, used, what, parts)) != used:
            parts[used] = f"{used} = {own}"
    elif isinstance(value, type):
        parts[used] = textwrap.dedent(inspect.getsource(value)).strip()
    elif _is_plain(value):
        parts[used] = f"{used} = {value!r}"
    else:
        raise Timer1Error(
            f"{what} {name!r} uses {used!r} of the notebook, a {type(value).__name__} that cannot be written into a file: "
            "numbers, text, lists of them, functions and imports can"
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _names_of(code: CodeType) -> list[str]:
    """The global names that a function's code, and the functions inside it, look up."""
    own = [step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    return [*own, *(name for part in code.co_consts if isinstance(part, CodeType) for name in _names_of(part))]


def _names_around(source: str) -> list[str]:
    """The names that a function's decorators and defaults use."""
    try:
        node = ast.parse(source).body[0]
    except SyntaxError:  # a lambda in the middle of a statement
        return []
    around = [*node.decorator_list, *node.args.defaults] if isinstance(node, ast.FunctionDef) else []
    return [name for part in around for name in _used(part)]


def _lambda(source: str, function: FunctionType, name: str, what: str) -> str:
    """The one lambda of a statement that is this function."""
    tree = None
    for text in (source, f"({source.strip().rstrip(',')})", f"f({source.strip().rstrip(',)')})"):
        try:
            tree = ast.parse(text)
            break
        except SyntaxError:
            continue
    found = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Lambda)} if tree else set()
    same = [text for text in found if _traits(_code_of(text)) == _traits(function.__code__)]
    if len(same) != 1:
        raise Timer1Error(f"{what} {name!r}: which lambda of its line it is cannot be told; give it a name with def")
    return same[0]


def _code_of(text: str) -> CodeType:
    return next(part for part in compile(text, "lambda", "eval").co_consts if isinstance(part, CodeType))


def _traits(code: CodeType) -> tuple[Any, ...]:
    return code.co_code, code.co_consts, code.co_names, code.co_varnames
