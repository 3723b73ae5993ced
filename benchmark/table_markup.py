"""A table as LaTeX (with booktabs) and as HTML, from its header, its lines and its notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

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
}
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))
# Columns of text before the figures: model, source, precision.
_TEXT_COLUMNS = 3


def latex(
    title: str,
    header: Sequence[str],
    groups: Sequence[Sequence[Sequence[str]]],
    notes: Sequence[str],
) -> str:
    """Return a ``table*`` that compiles with ``\\usepackage{booktabs}`` and ``graphicx``.

    Args:
        groups: lines of cells in groups that a rule separates.
    """
    figures = len(header) - _TEXT_COLUMNS
    body = [
        "\\midrule\n" + "\n".join(f"{_latex_line(line)} \\\\" for line in group)
        for group in groups
        if group
    ]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            # LaTeX numbers the table itself.
            rf"\caption{{{_tex(title.partition('. ')[2] or title)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * _TEXT_COLUMNS}{'r' * figures}}}",
            r"\toprule",
            rf"{_latex_line(header)} \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\raggedright\footnotesize",
            *(rf"{_tex(note)}\par" for note in notes),
            r"\end{table*}",
            "",
        ]
    )


def html(
    title: str,
    header: Sequence[str],
    groups: Sequence[Sequence[Sequence[str]]],
    notes: Sequence[str],
) -> str:
    """Return a complete HTML page with the table and its notes."""
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title>",
        "<style>body{font:15px/1.4 sans-serif;margin:2em}table{border-collapse:collapse}"
        "caption{font-weight:bold;text-align:left;padding:.5em 0}"
        "td,th{padding:.2em .7em;white-space:nowrap}td.figure{text-align:right;"
        "font-variant-numeric:tabular-nums}thead,tbody{border-bottom:1px solid #333}"
        "table{border-top:2px solid #333;border-bottom:2px solid #333}</style></head><body>",
        "<table>",
        f"<caption>{escape(title)}</caption>",
        "<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr></thead>",
    ]
    for group in groups:
        lines.append("<tbody>")
        lines += ["<tr>" + "".join(map(_html_cell, enumerate(line))) + "</tr>" for line in group]
        lines.append("</tbody>")
    lines += ["</table>", "<ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return "\n".join([*lines, "</body></html>", ""])


def _html_cell(numbered: tuple[int, str]) -> str:
    index, text = numbered
    kind = ' class="figure"' if index >= _TEXT_COLUMNS else ""
    return f"<td{kind}>{escape(text)}</td>"


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(_tex, cells))


def _tex(text: str) -> str:
    return _SPECIAL.sub(lambda match: _LATEX[match[0]], text)
