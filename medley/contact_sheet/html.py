"""A contact sheet as one self-contained HTML file."""

import base64
from html import escape

from medley.contact_sheet.pictures import encode_for_web
from medley.contact_sheet.sheet import Card, Sheet

LONGEST_SIDE = 640

STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #fff; --ink: #1d1c1a; --soft: #6d6a64; --line: #e2dfd8;
  --mark: #b3541e; }
@media (prefers-color-scheme: dark) { :root { --paper: #171614; --card: #22201d; --ink: #efece6; --soft: #a29d94;
  --line: #35322d; --mark: #f0935a; } }
* { box-sizing: border-box; }
body { margin: 0; padding: clamp(1rem, 3vw, 2.5rem); background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
header { display: flex; gap: 1.25rem; align-items: center; margin: 0 auto 1.5rem; max-width: 90rem; }
header img { width: 132px; height: 132px; object-fit: contain; border-radius: 10px; background: var(--card);
  border: 2px solid var(--mark); }
h1 { margin: 0 0 .3rem; font-size: clamp(1.3rem, 3vw, 1.9rem); line-height: 1.2; overflow-wrap: anywhere; }
header p { margin: .1rem 0; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 190px), 1fr)); gap: 1rem;
  margin: 0 auto; max-width: 90rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  display: flex; flex-direction: column; }
figure { position: relative; margin: 0; aspect-ratio: 1; background: var(--line); }
figure img { width: 100%; height: 100%; object-fit: contain; display: block; background: var(--card); }
figure blockquote { margin: 0; padding: 2.6rem 1rem 1rem; height: 100%; overflow: hidden; font-style: italic; }
figure b { position: absolute; top: .5rem; left: .5rem; min-width: 1.9rem; padding: .1rem .5rem; text-align: center;
  border-radius: 99px; background: var(--ink); color: var(--paper); font-size: .9rem; }
.words { padding: .7rem .85rem .8rem; display: flex; flex-direction: column; gap: .3rem; flex: 1; }
h2 { margin: 0; font-size: 1rem; line-height: 1.3; overflow-wrap: anywhere; }
.words p { margin: 0; color: var(--soft); font-size: .84rem; display: -webkit-box; -webkit-line-clamp: 3;
  -webkit-box-orient: vertical; overflow: hidden; overflow-wrap: anywhere; }
dl { margin: auto 0 0; padding-top: .4rem; font-size: .8rem; font-variant-numeric: tabular-nums; color: var(--soft); }
dl div { display: flex; justify-content: space-between; gap: .5rem; }
dd { margin: 0; } dt { overflow-wrap: anywhere; } dl .total { color: var(--ink); font-weight: 600; }
.none { color: var(--soft); }
"""


def html(sheet: Sheet) -> str:
    """Return `sheet` as a page."""
    cards = "\n".join(map(_card, sheet.cards)) or '<p class="none">No hits.</p>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(sheet.query.heading)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
{_image(sheet.picture, "the query's picture")}
<div>
<h1>{escape(sheet.query.heading)}</h1>
{"".join(f"<p>{escape(line)}</p>" for line in (sheet.query.scope, *sheet.arms))}
</div>
</header>
<main>
{cards}
</main>
</body>
</html>
"""


def _card(card: Card) -> str:
    picture = _image(card.picture, card.title) or f"<blockquote>{escape(card.text[:400])}</blockquote>"
    text = f"<p>{escape(card.text)}</p>" if card.text and card.text != card.title and card.picture else ""
    scores = "".join(f"<div><dt>{escape(arm)}</dt></div>" for arm in card.arms)
    return f"""<article>
<figure>{picture}<b>{card.rank}</b></figure>
<div class="words"><h2>{escape(card.title)}</h2>{text}
<dl><div class="total"><dt>{escape(card.id)}</dt><dd>{card.score:.4f}</dd></div>{scores}</dl></div>
</article>"""


def _image(data: bytes | None, alt: str) -> str:
    """Return an <img> with its picture inline, or "" if there is no readable picture."""
    embedded = encode_for_web(data, LONGEST_SIDE) if data else None
    if embedded is None:
        return ""
    mime_type, content = embedded
    return f'<img alt="{escape(alt)}" src="data:{mime_type};base64,{base64.b64encode(content).decode()}">'
