"""Brings the repository's own pages, and the pictures and tables they link to, into the site.

A page keeps its path, so that links between pages are right as they stand. A link to source code
becomes the words of its text: the site has no copy of the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_IN_HTML = re.compile(r'(?:src|srcset|href)="([^":#]+)"')
# What a browser shows; what else is linked to is code or data.
_SHOWN = (".svg", ".png", ".html", ".md", ".txt", ".csv")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages of the navigation that are not in this folder, and what they show."""
    for page in _pages(config.nav or []):
        if (HERE / page).is_file():
            continue
        _add(files, page, config)
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in [link[1] for link in _LINK.findall(text)] + _IN_HTML.findall(text):
            path = _place(page, target)
            if path.suffix in _SHOWN and path.is_file():
                _add(files, path.relative_to(ROOT).as_posix(), config)
    return files


def on_page_markdown(text: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take the links to code away, and leave their words."""
    source = page.file.src_uri

    def kept(match: re.Match[str]) -> str:
        path = _place(source, match[2])
        shown = path.is_file() and path.suffix in _SHOWN
        return match[0] if shown or not path.exists() else match[1]

    return _LINK.sub(kept, text)


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _pages(item)


def _place(page: str, target: str) -> Path:
    return (ROOT / page).parent.joinpath(target).resolve()


def _add(files: Files, path: str, config: MkDocsConfig) -> None:
    if files.get_file_from_path(path) is None:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
