"""What MkDocs does for the documentation beside mkdocs.yml: equations, and pages without a place.

Equations become MathML when the site is built, so that every browser of the last years draws them
without a script and without a network.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

# What the Markdown extension pymdownx.arithmatex makes of $...$ and $$...$$.
_EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_STUDIES, _REST = "How it was checked", "Reference"


def on_config(config: Any) -> Any:
    """Give pages that the navigation does not name a place: studies among their like."""
    pages = {path.relative_to(config.docs_dir).as_posix() for path in _pages(config.docs_dir)}
    for page in sorted(pages - set(_named(config.nav))):
        wanted = _STUDIES if page.startswith("results/") else _REST
        for section in config.nav:
            section.get(wanted, []).append(page)
    return config


def on_page_content(content: str, **_: Any) -> str:
    """Turn the equations of a page into MathML."""
    return _EQUATION.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    block = found["tag"] == "div"
    drawn = convert(html.unescape(found["latex"]), display="block" if block else "inline")
    return f'<div class="equation">{drawn}</div>' if block else drawn


def _pages(folder: str) -> list[Path]:
    return list(Path(folder).rglob("*.md"))


def _named(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    inside = entry.values() if isinstance(entry, dict) else entry
    return [name for one in inside for name in _named(one)]
