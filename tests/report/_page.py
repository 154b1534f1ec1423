"""A page as a parser of HTML sees it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from findnemo.report import render
from findnemo.runs import Run

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """`tags`:

    (name, attributes) of all elements; `text`: what a reader sees; `by_id`: text inside each
    element with an id.
    """

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.by_id: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self._text: list[str] = []
        self.balanced = True
        self.feed(html)
        self.close()
        self.balanced = self.balanced and not self._open

    @property
    def text(self) -> str:
        return " ".join("".join(self._text).split())

    def of(self, id_: str) -> str:
        return " ".join(self.by_id[id_].split())

    def sources(self) -> list[str]:
        return [
            str(v)
            for _, attributes in self.tags
            for k, v in attributes.items()
            if k in ("src", "href", "srcset", "data", "action")
        ]

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag in ("td", "th", "br"):
            self.handle_data(" ")
        if tag in VOID:
            return
        self._open.append((tag, attributes.get("id")))
        if attributes.get("id"):
            self.by_id[attributes["id"]] = ""

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self._open or self._open[-1][0] != tag:
            self.balanced = False
            return
        self._open.pop()

    def handle_data(self, data):
        if any(tag in ("style", "script") for tag, _ in self._open):
            return
        self._text.append(data)
        for _, id_ in self._open:
            if id_:
                self.by_id[id_] += data


def page_html(path: Path) -> str:
    """The HTML of the report of a run."""
    with Run.open(path) as run:
        return render(run)


def page_of(path: Path) -> Page:
    """The report of a run; its tags are balanced."""
    page = Page(page_html(path))
    assert page.balanced
    return page
