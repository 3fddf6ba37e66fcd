"""Page: one HTML document that needs no other file, for people to keep and send around.

Names of classes and files come from outside: what is not said to be HTML is escaped here, and a
policy in the document forbids scripts and anything from elsewhere, should a name slip through.
"""

import base64
import html
from collections.abc import Iterable, Sequence

_HARMLESS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Not printable by Unicode's categories; words and emoji have them."""
_INVISIBLE = "\N{REPLACEMENT CHARACTER}"


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """A page of HTML `parts`, empty ones left out; `style` is added to the common style."""
    body = "\n".join(part for part in parts if part)
    return _PAGE.format(title=html.escape(title), style=_STYLE + style, body=body)


def text(value: object) -> str:
    """Text as HTML: escaped, characters that act unseen made visible, its direction its own."""
    shown = "".join(c if c.isprintable() or c in _HARMLESS else _INVISIBLE for c in str(value))
    return f"<bdi>{html.escape(shown)}</bdi>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    """A table of plain text; `kind` is its class: `numbers` are set to the right, `facts` not."""
    head = "".join(f"<th>{text(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table class={kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def data_url(content: bytes, kind: str = "png") -> str:
    """A picture as the `src` of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def tile(name: str, value: str, note: str = "") -> str:
    """A figure in large letters."""
    shown = (text(part) for part in (name, value, note))
    return "<div class=tile><span>{}</span><b>{}</b><small>{}</small></div>".format(*shown)


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2330; background: #fff; margin: 2rem auto;
  max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { color: #525b6b; max-width: 48rem; margin: .4rem 0 1rem; }
.tile { display: inline-block; border: 1px solid #dde1e8; border-radius: 6px;
  margin: 0 .5rem .5rem 0; padding: .5rem .8rem; min-width: 7.5rem; vertical-align: top; }
.tile span, .tile b, .tile small { display: block; }
.tile b { font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.tile span, small { color: #525b6b; font-size: .8rem; }
.plot { max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid #e7eaef; padding: .25rem .7rem; text-align: left;
  overflow-wrap: anywhere; vertical-align: top; }
.numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right; }
.facts td:first-child { color: #525b6b; white-space: nowrap; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .8rem; }
figure { margin: 0; } figure img { width: 100%; border-radius: 4px; background: #f3f4f7; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
pre { background: #f6f7f9; border-radius: 6px; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'"><meta name="viewport" content="width=device-width, initial-scale=1">
<style>{style}</style></head><body>
{body}
</body></html>
"""
