"""The house: imports go one way, nothing heavy at start-up, every dependency is declared, and few files."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "timer1lib"

FLOORS: list[tuple[str, ...]] = [
    ("errors", "extras", "schema", "spans", "files", "processes", "progress", "weak"),
    ("ideas", "forms"),
    ("rewards", "rules"),
    ("params",),
    ("runfolder",),
    ("workers",),
    ("clock",),
    ("video",),
    ("models",),
    ("world",),
    ("data",),
    ("inference",),
    ("training",),
    ("evaluation",),
    ("view",),
    ("runs",),
    ("stages",),
    ("rehearsal", "workbook"),
    ("cli",),
]
"""Lowest first. A module imports from its own floor and from lower ones."""

TRAINED = ("timer1lib.stages.sft", "timer1lib.stages.difficulty", "timer1lib.stages.grpo")
"""What they reach decides whether they run again, so it must not hold how results are measured and shown."""

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "plotly", "papermill", "decord", "av", "pandas", "numpy", "pydantic"}

PLUG_INS = {
    "torchvision": "video processors of transformers",
    "accelerate": "Trainer of transformers",
    "jupyterlab": "started as a command",
}
TOOLS = {"pytest-xdist", "ruff", "mypy", "pandas-stubs", "types-pyyaml", "nbstripout", "pre-commit"}
"""Development tools that are commands or plug-ins."""

MOST_FILES, MOST_LINES = 195, 34_000


def sources() -> dict[str, Path]:
    """{module: file} of the library."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = sources()


def imported(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """(what a file imports, line), wherever in the file it stands; relative imports by their full name."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield (whole if whole in MODULES else base), node.lineno


def graph() -> dict[str, dict[str, int]]:
    """{module: {module of ours that it imports: line}}"""
    edges: dict[str, dict[str, int]] = {}
    for module, path in MODULES.items():
        edges[module] = {}
        for name, line in imported(module, path):
            if name.split(".")[0] == PACKAGE and name != module:
                edges[module].setdefault(name, line)
    return edges


GRAPH = graph()


def floor(module: str) -> int | None:
    if module == PACKAGE:
        return -1  # the version alone
    return next((i for i, names in enumerate(FLOORS) if module.split(".")[1] in names), None)


def place(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{line}"


def circles(edges: dict[str, dict[str, int]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components, those of two and more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges.get(name, {}):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == name:
                    break
            if len(group) > 1:
                groups.append(sorted(group))

    for name in edges:
        if name not in index:
            visit(name)
    return groups


def test_the_reading_of_imports_finds_late_relative_and_submodule_imports(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import os.path\nfrom . import probe\nfrom ..clock import rule\nfrom ..errors import Timer1Error\n"
        "def f():\n    from timer1lib.models.load import load_model\n"
    )
    assert list(imported("timer1lib.video.x", path)) == [
        ("os.path", 1),
        ("timer1lib.video.probe", 2),
        ("timer1lib.clock.rule", 3),
        ("timer1lib.errors", 4),
        ("timer1lib.models.load", 6),
    ]


def test_circles_are_found_wherever_they_are_entered() -> None:
    edges = {"a": {"b": 1}, "b": {"c": 1}, "c": {"b": 2, "d": 1}, "d": {}, "e": {"f": 1}, "f": {"e": 1}}
    assert sorted(circles(edges)) == [["b", "c"], ["e", "f"]]


def test_every_module_stands_on_a_floor() -> None:
    homeless = [str(path.relative_to(ROOT)) for module, path in MODULES.items() if floor(module) is None]
    assert not homeless, "on no floor:\n" + "\n".join(homeless)


def test_every_import_of_ours_exists() -> None:
    missing = [
        f"{place(module, line)} imports {name}"
        for module, edges in GRAPH.items()
        for name, line in edges.items()
        if name not in MODULES
    ]
    assert not missing, "no such module:\n" + "\n".join(missing)


def test_no_import_goes_upward() -> None:
    upward = [
        f"{place(module, line)} imports {name}"
        for module, edges in GRAPH.items()
        for name, line in edges.items()
        if (here := floor(module)) is not None and (there := floor(name)) is not None and there > here
    ]
    assert not upward, f"{len(upward)} imports go upward:\n" + "\n".join(upward)


def test_imports_have_no_circle() -> None:
    found = circles(GRAPH)
    told = [
        f"{place(module, GRAPH[module][other])} imports {other}"
        for group in found
        for module in group
        for other in group
        if other in GRAPH[module]
    ]
    assert not found, f"{len(found)} circles, made of:\n" + "\n".join(told)


def test_the_world_does_not_know_the_model_that_is_made_of_it() -> None:
    base = "timer1lib.world.base"
    knows = [
        f"{place(module, line)} imports {name}"
        for module, edges in GRAPH.items()
        if not module.startswith(base) and floor(module) is not None and floor(module) <= floor(base)  # type: ignore[operator]
        for name, line in edges.items()
        if name.startswith(base)
    ]
    assert not knows, "\n".join(knows)


def test_what_is_trained_does_not_depend_on_how_it_is_measured() -> None:
    reached: dict[str, str] = {}
    queue = [(name, name) for name in TRAINED]
    while queue:
        name, way = queue.pop(0)
        if name in reached or name not in MODULES:
            continue
        reached[name] = way
        # importing a module runs the packages that it lies in
        inside = [".".join(name.split(".")[:i]) for i in range(2, name.count(".") + 1)]
        # what runs a stage, and tries ideas for it, is in no key (runs/closure.py)
        led = [other for other in [*GRAPH[name], *inside] if not other.startswith(f"{PACKAGE}.runs")]
        queue += [(other, f"{way} -> {other}") for other in led]
    bad = [way for name, way in reached.items() if name.startswith((f"{PACKAGE}.evaluation", f"{PACKAGE}.view"))]
    assert not bad, "02, 03 or 04 depend on evaluation or view:\n" + "\n".join(bad)


def test_starting_imports_nothing_heavy() -> None:
    code = "import sys, timer1lib.cli as c; c.main(['--help']); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert PACKAGE in loaded
    assert not loaded & HEAVY, "imported by `timer1 --help`:\n" + "\n".join(sorted(loaded & HEAVY))


def name_of(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(group: str) -> set[str]:
    """What a group of dependencies names, its own extras (`timer1lib[notebooks]`) followed; `core` is what every install has."""
    found: set[str] = set()
    for line in PROJECT["dependencies"] if group == "core" else PROJECT["optional-dependencies"][group]:
        inner = re.fullmatch(r"timer1lib\[(\w+)\]", line)
        found |= declared(inner[1]) if inner else {name_of(re.split(r"[^A-Za-z0-9_.-]", line)[0])}
    return found


def needed() -> set[str]:
    """What the seven notebooks need, installed by `make run`."""
    return declared("core") | declared("train") | declared("lab")


DEVELOP = ("dev", "docs")


def extras() -> set[str]:
    """What only an extra brings: imported late, or in tests that are skipped without it."""
    known = {"notebooks", "train", "lab", *DEVELOP}
    return {name for group in PROJECT["optional-dependencies"] if group not in known for name in declared(group)}


def third_party(*folders: str) -> dict[str, str]:
    """{distribution: first place that imports it} in Python files and notebooks below folders."""
    ours = {PACKAGE} | {path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    distributions = packages_distributions()
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix == ".py":
                tops = [(name.split(".")[0], line) for name, line in imported("", path) if name]
            elif path.suffix == ".ipynb":
                cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
                text = "\n".join("".join(c["source"]) for c in cells)
                tops = [
                    (m[1], text[: m.start()].count("\n") + 1)
                    for m in re.finditer(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
                ]
            else:
                continue
            for top, line in tops:
                if top not in ours and top not in sys.stdlib_module_names:
                    for distribution in distributions.get(top, [top])[:1]:
                        found.setdefault(name_of(distribution), f"{path.relative_to(ROOT)}:{line}")
    return found


def test_every_dependency_that_is_imported_is_declared_and_the_other_way_round() -> None:
    run = third_party(PACKAGE, "notebooks")
    undeclared = [f"{where} imports {name}" for name, where in run.items() if name not in needed() | extras()]
    develop = third_party("tests", "benchmarks", "scripts")
    known = needed() | declared("dev") | declared("docs") | extras()
    undeclared += [f"{where} imports {name}" for name, where in develop.items() if name not in known]
    assert not undeclared, "not declared in pyproject.toml:\n" + "\n".join(undeclared)
    unused = needed() - set(run) - set(PLUG_INS)
    unused |= declared("dev") - set(develop) - TOOLS
    assert not unused, "declared in pyproject.toml, imported by nobody:\n" + "\n".join(sorted(unused))


def test_an_extra_is_known_by_what_it_brings() -> None:
    from timer1lib.extras import EXTRAS

    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        brings = {name_of(distributions.get(module, [module])[0]) for module in modules}
        assert brings == declared(extra) - {"decord"}, extra


def test_the_house_is_small() -> None:
    counts = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES.values()}
    small = "\n".join(f"{lines:4} {path}" for path, lines in sorted(counts.items(), key=lambda item: item[1]) if 0 < lines < 50)
    assert len(counts) < MOST_FILES, f"{len(counts)} Python files, at most {MOST_FILES - 1}; the smallest:\n{small}"
    lines = sum(counts.values())
    assert lines < MOST_LINES, f"{lines} lines, at most {MOST_LINES - 1}"


def test_a_kernel_that_only_starts_ranks_loads_no_torch() -> None:
    names = ", ".join(f"timer1lib.stages.{name}" for name in ("sft", "difficulty", "grpo", "evaluate"))
    code = f"import sys, {names}; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & {"torch", "transformers", "trl", "peft", "decord", "av"}
