"""Plotly figures as HTML that needs no network: plotly.js embedded once, compressed, then only data."""

from __future__ import annotations

import base64
import gzip
import html
import itertools
import json
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

_numbers = itertools.count(1)
_first_cell: dict[str, Any] = {}


@cache
def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def loader_html() -> str:
    """A script with plotly.js (1.9 MB compressed) that later figures on the page wait for."""
    return (
        "<script>window.timer1Plotly ??= (async () => {"
        f'const packed = Uint8Array.from(atob("{_packed_plotly()}"), (c) => c.charCodeAt(0));'
        'const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));'
        "const text = await new Response(stream).text();"
        'new Function("define", "exports", "module", text).call(window);'
        "return window.Plotly; })();</script>"
    )


def figure_html(fig: go.Figure, label: str = "") -> str:
    """The figure's place on the page and a script that draws it once `loader_html`'s script has run."""
    identity = f"t1-figure-{next(_numbers)}"
    title = label or str(getattr(fig.layout.title, "text", "") or "figure")
    height = int(fig.layout.height or 360)
    data = str(fig.to_json()).replace("</", "<\\/").replace("<!--", "<\\!--")
    return (
        f'<div id="{identity}" class="t1-figure" role="img" aria-label="{html.escape(title, quote=True)}" '
        f'style="width:100%;min-height:{height}px"></div>'
        "<script>(async () => { const Plotly = await window.timer1Plotly;"
        f"const place = document.getElementById({json.dumps(identity)});"
        "if (!Plotly || !place) return;"
        f"const figure = {data};"
        "await Plotly.newPlot(place, figure.data, figure.layout, { displaylogo: false, responsive: true }); })();</script>"
    )


def needs_loader() -> bool:
    """Whether the figure shown now is the first of its notebook, and so has to bring plotly.js along."""
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    parent = shell.get_parent() if shell is not None and hasattr(shell, "get_parent") else {}
    cell = parent.get("metadata", {}).get("cellId")
    if not _first_cell:
        _first_cell["cell"] = cell
        return True
    return cell is not None and cell == _first_cell["cell"]
