"""A table as Markdown, LaTeX (with booktabs) and HTML, from header, lines and notes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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
_MARKDOWN = re.compile(r"[|`]|<(?=[A-Za-z/!?])|\\(?=[!-/:-@\[-`{-~])")
# What it reads in a name: emphasis, but no underscore inside a word; links.
_EMPHASIS = re.compile(r"[*\[]|(?<!\w)_|_(?!\w)")
# Columns of text before the figures, in Table 2: model, source, precision.
_TEXT_COLUMNS = 3


def markdown(
    title: str,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    notes: Sequence[str],
    *,
    names: Collection[int] = (0,),
) -> str:
    """Return a table that reads well in a terminal too, and its notes as a list.

    Of the header, the title and the columns ``names`` nothing is markup: they hold names.
    """
    head = [_name(text) for text in header]
    body = [[_name(t) if i in names else _md(t) for i, t in enumerate(line)] for line in lines]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    table = [
        f"| {' | '.join(text.ljust(w) for text, w in zip(line, widths, strict=True))} |"
        for line in [head, rule, *body]
    ]
    points = [f"- {_md(note)}" for note in notes]
    heading = f"**{_name(title)}**"
    return "\n".join([heading, "", *table, *(["", *points] if points else [])]) + "\n"


def _md(text: str) -> str:
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", text)


def _name(text: str) -> str:
    return _EMPHASIS.sub(lambda match: f"\\{match[0]}", _md(text))


def latex(
    title: str,
    header: Sequence[str],
    groups: Sequence[Sequence[Sequence[str]]],
    notes: Sequence[str],
    *,
    text_columns: int = _TEXT_COLUMNS,
) -> str:
    """Return a ``table*`` that compiles with ``\\usepackage{booktabs}`` and ``graphicx``.

    Args:
        groups: lines of cells in groups that a rule separates.
        text_columns: columns of text before the figures.
    """
    figures = len(header) - text_columns
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
            rf"\begin{{tabular}}{{{'l' * text_columns}{'r' * figures}}}",
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
    *,
    text_columns: int = _TEXT_COLUMNS,
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
        lines += [
            "<tr>" + "".join(_html_cell(c, i >= text_columns) for i, c in enumerate(line)) + "</tr>"
            for line in group
        ]
        lines.append("</tbody>")
    lines += ["</table>", "<ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return "\n".join([*lines, "</body></html>", ""])


def _html_cell(text: str, is_figure: bool) -> str:
    kind = ' class="figure"' if is_figure else ""
    return f"<td{kind}>{escape(text)}</td>"


def _latex_line(cells: Sequence[str]) -> str:
    line = " & ".join(map(_tex, cells))
    # behind the line before, which ends in \\, these would be read as its options
    return f"{{{line[0]}}}{line[1:]}" if line[:1] in ("[", "*") else line


def _tex(text: str) -> str:
    # two hyphens would be a dash
    return re.sub("-(?=-)", "-{}", _SPECIAL.sub(lambda match: _LATEX[match[0]], text))
