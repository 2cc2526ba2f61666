"""Hooks of `mkdocs build`: pages that lie elsewhere in the project. README, CONTRIBUTING, CHANGELOG, and the notebooks.

A notebook is shown as it ran in outputs/tiny, where that run is there; else as it is in notebooks/, without outputs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Of the project's folder, and what each is called in the site."""
RUN = ROOT / "outputs" / "tiny" / "notebooks"


def notebooks() -> dict[str, Path]:
    """{name in the site: file}, in order."""
    found = {}
    for source in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        ran = RUN / source.name
        found[f"notebooks/{source.name}"] = ran if ran.is_file() else source
    return found


def on_config(config: Any) -> Any:
    """Name every notebook in the menu, whichever there are."""
    for entry in config["nav"]:
        if isinstance(entry, dict) and entry.get("Notebooks") == "notebooks/":
            entry["Notebooks"] = list(notebooks())
    return config


def on_files(files: Files, config: Any) -> Files:
    """Bring in what lies outside docs/."""
    for source, name in PAGES.items():
        text = re.sub(r"(?<=\]\()docs/", "", (ROOT / source).read_text())
        for other, page in PAGES.items():
            text = text.replace(f"]({other})", f"]({page})")
        files.append(File.generated(config, name, content=text))
    for name, path in notebooks().items():
        files.append(File.generated(config, name, content=path.read_text()))
    return files
