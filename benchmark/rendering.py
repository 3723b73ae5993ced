"""A table as text: Markdown, CSV, JSON, LaTeX (with booktabs) and HTML, for every verb that prints.

CSV is pandas'. What else pandas writes is not what stands here: its JSON cuts floats after 15
digits; tabulate strips the blanks that align figures before their intervals; its Styler has no
rules between groups of rows, no notes, and escapes neither arrows nor ``<`` for LaTeX.

pandas is imported for CSV alone, torch and s3prl never.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

Format = Literal["md", "csv", "json", "latex", "html"]


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table whose cells are texts, for Markdown, LaTeX and HTML.

    Attributes:
        title: above it; in LaTeX what stands behind ``Table N. ``.
        header: names of the columns.
        groups: lines of cells, in groups that a rule separates; blanks that align a column's
            figures are for Markdown alone.
        notes: sentences below it.
        text_columns: how many columns of text stand before the figures.
        name_columns: columns that hold names, in which nothing is markup.
    """

    title: str
    header: Sequence[str]
    groups: Sequence[Sequence[Sequence[str]]]
    notes: Sequence[str] = ()
    text_columns: int = 1
    name_columns: Collection[int] = (0,)


def render_text(table: TextTable, format: Literal["md", "latex", "html"]) -> str:
    """Return the table as text that ends with a newline."""
    shown = [[[printable(cell) for cell in line] for line in group] for group in table.groups]
    render = {"md": _markdown, "latex": _latex, "html": _html}[format]
    return render(replace(table, groups=shown))


def printable(text: str) -> str:
    """Return a text of one line that moves no cursor: what does not print is escaped."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def csv_text(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return CSV; None is an empty cell, and no text is a formula to a spreadsheet."""
    import pandas as pd

    # as objects: an integer stays one beside a missing figure
    shown = [[_no_formula(cell) for cell in line] for line in lines]
    frame = pd.DataFrame(shown, columns=list(header), dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")


def _no_formula(cell: object) -> object:
    """A text that a spreadsheet would run begins with an apostrophe, which it does not show."""
    if not isinstance(cell, str):
        return cell
    begins = cell.startswith(("=", "@")) or (cell[:1] in ("+", "-") and cell[1:2].isalpha())
    return f"'{printable(cell)}" if begins else printable(cell)


# Before digits that JSON is to hold as they stand; no text has this character.
_AS_PRINTED = "\ue000"


def number_as_printed(digits: str) -> str:
    """Return what `json_text` writes as the number ``65.00``, where a float would be 65.0."""
    return _AS_PRINTED + digits


def json_text(value: Any) -> str:
    """Return JSON, indented, with letters as they are."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(rf'"{_AS_PRINTED}([^"]*)"', r"\1", text) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "—": r"\textemdash{}",
    # what text fonts would print as something else
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
    "`": r"\textasciigrave{}",
}
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))
# What Markdown reads anywhere: a table's bar, code, tags, and escapes themselves.
_MARKUP = re.compile(r"[|`]|<(?=[A-Za-z/!?])|\\(?=[!-/:-@\[-`{-~])")
# What it reads in a name: emphasis, but no underscore inside a word; links.
_EMPHASIS = re.compile(r"[*\[]|(?<!\w)_|_(?!\w)")


def _markdown(table: TextTable) -> str:
    """Return a table that reads well in a terminal too, and its notes as a list."""
    head = [_name(text) for text in table.header]
    body = [
        [_name(t) if i in table.name_columns else _md(t) for i, t in enumerate(line)]
        for group in table.groups
        for line in group
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = [
        f"| {' | '.join(text.ljust(w) for text, w in zip(line, widths, strict=True))} |"
        for line in [head, rule, *body]
    ]
    points = [f"- {_md(note)}" for note in table.notes]
    heading = f"**{_name(table.title)}**"
    return "\n".join([heading, "", *lines, *(["", *points] if points else [])]) + "\n"


def _md(text: str) -> str:
    return _MARKUP.sub(lambda match: f"\\{match[0]}", text)


def _name(text: str) -> str:
    return _EMPHASIS.sub(lambda match: f"\\{match[0]}", _md(text))


def _latex(table: TextTable) -> str:
    """Return a ``table*`` that compiles with ``\\usepackage{booktabs}`` and ``graphicx``."""
    figures = len(table.header) - table.text_columns
    body = [
        "\\midrule\n" + "\n".join(f"{_latex_line(line)} \\\\" for line in group)
        for group in table.groups
        if group
    ]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            # LaTeX numbers the table itself.
            rf"\caption{{{_tex(table.title.partition('. ')[2] or table.title)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * table.text_columns}{'r' * figures}}}",
            r"\toprule",
            rf"{_latex_line(table.header)} \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\raggedright\footnotesize",
            *(rf"{_tex(note)}\par" for note in table.notes),
            r"\end{table*}",
            "",
        ]
    )


def _html(table: TextTable) -> str:
    """Return a complete HTML page with the table and its notes."""
    title, count = escape(table.title), table.text_columns
    header = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{title}</title>",
        "<style>body{font:15px/1.4 sans-serif;margin:2em}table{border-collapse:collapse}"
        "caption{font-weight:bold;text-align:left;padding:.5em 0}"
        "td,th{padding:.2em .7em;white-space:nowrap}td.figure{text-align:right;"
        "font-variant-numeric:tabular-nums}thead,tbody{border-bottom:1px solid #333}"
        "table{border-top:2px solid #333;border-bottom:2px solid #333}</style></head><body>",
        "<table>",
        f"<caption>{title}</caption>",
        f"<thead><tr>{header}</tr></thead>",
    ]
    for group in table.groups:
        lines.append("<tbody>")
        lines += [
            "<tr>" + "".join(_html_cell(c, i >= count) for i, c in enumerate(line)) + "</tr>"
            for line in group
        ]
        lines.append("</tbody>")
    lines += ["</table>", "<ul>", *(f"<li>{escape(note)}</li>" for note in table.notes), "</ul>"]
    return "\n".join([*lines, "</body></html>", ""])


def _html_cell(text: str, is_figure: bool) -> str:
    kind = ' class="figure"' if is_figure else ""
    return f"<td{kind}>{escape(text.strip())}</td>"


def _latex_line(cells: Sequence[str]) -> str:
    line = " & ".join(_tex(cell.strip()) for cell in cells)
    # behind the line before, which ends in \\, these would be read as its options
    return f"{{{line[0]}}}{line[1:]}" if line[:1] in ("[", "*") else line


def _tex(text: str) -> str:
    # two hyphens would be a dash
    return re.sub("-(?=-)", "-{}", _SPECIAL.sub(lambda match: _LATEX[match[0]], text))


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as columns of text under their keys, for a terminal alone."""
    keys = list(rows[0])
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in keys}
    lines = [dict(zip(keys, keys, strict=True)), *rows]
    return "\n".join(
        "  ".join(row[key].ljust(widths[key]) for key in keys).rstrip() for row in lines
    )
