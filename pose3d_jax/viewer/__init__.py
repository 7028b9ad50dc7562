"""What a person looks at: tables and pages here, pictures in `figures.py`.

All text goes in as it is and is escaped here; only the parts of a page are HTML already.
"""

import dataclasses
import html
import string
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: its label, its cells as they are shown, which of them stand out."""

    label: str
    cells: tuple[str, ...]
    bold: frozenset[int] = frozenset()
    quiet: bool = False  # something to compare with, not the thing itself


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns under optional `spans` (heading, number of columns), the same for text and HTML."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    spans: tuple[tuple[str, int], ...] = ()

    def text(self) -> str:
        """For the terminal: labels to the left, cells to the right, the title above."""
        lines = [self.columns, *(row.cells for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        starts, start = [], 0
        for heading, count in self.spans:
            inside = sum(widths[start : start + count]) + 2 * (count - 1)
            widths[start] += max(0, len(heading) - inside)
            starts.append(sum(widths[start : start + count]) + 2 * (count - 1))
            start += count
        labels = max((len(row.label) for row in self.rows), default=0)
        above = "  ".join(
            heading.rjust(width) for (heading, _), width in zip(self.spans, starts, strict=True)
        )
        body = [
            (" " * labels, self.columns),
            *((r.label.ljust(labels), r.cells) for r in self.rows),
        ]
        return "\n".join(
            [
                self.title,
                *([" " * labels + "  " + above] if above else []),
                *(
                    "  ".join(
                        [label, *(c.rjust(w) for c, w in zip(cells, widths, strict=True))]
                    ).rstrip()
                    for label, cells in body
                ),
            ]
        )

    def html(self) -> str:
        """A `<table>` that scrolls sideways inside its box where the page is narrow."""
        firsts = {0}  # the column that opens each span has more room before it
        for _, count in self.spans:
            firsts.add(max(firsts) + count)

        def cells(tag: str, texts: Iterable[str], bold: frozenset[int] = frozenset()) -> str:
            return "".join(
                f"<{tag}{' class=first' if i in firsts and self.spans else ''}>"
                f"{f'<b>{html.escape(text)}</b>' if i in bold else html.escape(text)}</{tag}>"
                for i, text in enumerate(texts)
            )

        above = "".join(
            f'<th class="first span" colspan="{count}">{html.escape(heading)}</th>'
            for heading, count in self.spans
        )
        body = "".join(
            f"<tr{' class=quiet' if row.quiet else ''}>"
            f"<th>{html.escape(row.label)}</th>{cells('td', row.cells, row.bold)}</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        spans = f"<tr><th></th>{above}</tr>" if above else ""
        heads = f"{spans}<tr><th></th>{cells('th', self.columns)}</tr>"
        return (
            f'<div class="scroll"><table>{caption}<thead>{heads}</thead>'
            f"<tbody>{body}</tbody></table></div>"
        )


def page(title: str, lead: str, parts: Iterable[str]) -> str:
    """A whole HTML page, with nothing to fetch, of parts that are HTML already."""
    return string.Template(_PAGE).substitute(
        title=html.escape(title), lead=html.escape(lead), style=_STYLE, body="\n".join(parts)
    )


def section(heading: str) -> str:
    """The heading of a section."""
    return f"<h2>{html.escape(heading)}</h2>"


def note(text: str) -> str:
    """A paragraph in small print."""
    return f'<p class="note">{html.escape(text)}</p>'


def picture(svg: str, caption: str) -> str:
    """A figure, which scrolls sideways where the page is too narrow for it."""
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="scroll">{svg}</div>{below}</figure>'


def details(summary: str, part: str) -> str:
    """A part that opens when its summary is clicked."""
    return f"<details><summary>{html.escape(summary)}</summary>{part}</details>"


def code(text: str) -> str:
    """Text in columns of equal width, line by line."""
    return f'<pre class="scroll">{html.escape(text)}</pre>'


_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f27; --quiet: #626b78;
  --line: #e2e5ea; --tint: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171c; --ink: #e4e7ec; --quiet: #98a1ae; --line: #2c323b; --tint: #1b1f26; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .75rem; font-size: 1.2rem; }
.lead { margin: .35rem 0 1.5rem; color: var(--quiet); }
.note { max-width: 46rem; color: var(--quiet); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1.25rem; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { padding: .25rem 0 .5rem; text-align: left; font-weight: 600; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; }
th:first-child { position: sticky; left: 0; padding-left: 0; background: var(--ground);
  text-align: left; }
thead th { font-weight: 400; font-size: .82rem; color: var(--quiet); }
thead .span { text-align: right; font-weight: 600; color: var(--ink); padding-bottom: 0; }
thead tr:last-child th { border-bottom: 1px solid var(--line); }
.first { padding-left: 1.5rem; }
tbody th { font-weight: 500; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
.quiet > * { color: var(--quiet); font-weight: 400; }
b { font-weight: 700; }
figure { margin: .5rem 0 1.5rem; }
figcaption { color: var(--quiet); font-size: .85rem; }
svg { display: block; max-width: none; height: auto; }
@media (min-width: 62rem) { svg { max-width: 100%; } }
details { border-top: 1px solid var(--line); }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { padding: .6rem 0; cursor: pointer; font-size: .95rem; overflow-wrap: anywhere; }
pre { margin: 0 0 1rem; padding: .9rem 1rem; border-radius: 6px; background: var(--tint);
  font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, monospace; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<h1>$title</h1>
<p class="lead">$lead</p>
$body
</body>
</html>
"""
