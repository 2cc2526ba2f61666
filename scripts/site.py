"""Hooks of `mkdocs build`: pages that lie elsewhere in the project. README, CONTRIBUTING, CHANGELOG, and the notebooks.

A notebook is shown as it ran in outputs/tiny, where that run is there; else as it is in notebooks/, without outputs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Of the project's folder, and what each is called in the site."""
RUN = ROOT / "outputs" / "tiny"


def notebooks() -> dict[str, Path]:
    """{path of a notebook: the folder that it is taken from}, in order."""
    names = [f"notebooks/{source.name}" for source in sorted((ROOT / "notebooks").glob("0*.ipynb"))]
    return {name: RUN if (RUN / name).is_file() else ROOT for name in names}


def on_config(config: Any) -> Any:
    """Name every notebook in the menu, whichever there are, and under `Use` every page that nobody has put elsewhere."""
    menu = {heading: pages for entry in config["nav"] for heading, pages in entry.items()}
    named = {page for pages in menu.values() if isinstance(pages, list) for page in pages}
    menu["Use"] += sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name not in named)
    menu["Notebooks"] = list(notebooks())
    config["nav"] = [{heading: pages} for heading, pages in menu.items()]
    return config


@event_priority(100)  # before the plugin that turns notebooks into pages
def on_files(files: Files, config: Any) -> Files:
    """Bring in what lies outside docs/."""
    for source, name in PAGES.items():
        text = re.sub(r"(?<=\]\()docs/", "", (ROOT / source).read_text())
        for other, page in PAGES.items():
            text = text.replace(f"]({other})", f"]({page})")
        files.append(File.generated(config, name, content=text))
    for name, folder in notebooks().items():
        files.append(File(name, str(folder), config["site_dir"], config["use_directory_urls"]))
    return files
