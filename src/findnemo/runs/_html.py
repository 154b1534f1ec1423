"""A run as HTML for a notebook: what to do, figures, and pictures before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from findnemo.files.fetch import RefusedError
from findnemo.files.html import block, data_uri, escaped, facts, in_notebook, paragraph
from findnemo.files.originals import picture
from findnemo.runs._places import refuse_links
from findnemo.runs.export import striking
from findnemo.runs.overview import glance_at, memorized, name_of
from findnemo.runs.standing import folder_of, standing_text, worst_first
from findnemo.runs.store import Caption, Run
from findnemo.runs.verdict import ALL, advice_of, audited_counts

BUDGET = 250_000  # characters of all pictures together
SHOWN = 12  # pictures at most
SIDE = 420  # longer side of a picture, in pixels


@in_notebook.register
def html_of(run: Run) -> str:
    """Return HTML that says what to do with a run and why, with its five figures and its sheets.

    Captions whose memory is not gone come first. SHOWN and BUDGET limit the number of sheets. No
    model is loaded.

    Raises InputError for a run that holds a link: a picture must not come from outside the run.
    """
    refuse_links(run.path)
    captions = striking(run)  # a run may have a million
    audited, _ = audited_counts(run, ALL)
    known = glance_at(run, captions, audited)
    memories = worst_first(memorized(captions))
    shown = list(islice(_sheets(run, memories), SHOWN))
    left = len(memories) - len(shown)
    more = paragraph(f"and {left} more memorized: findnemo report {run.path}") if left else ""
    grid = f'<div style="display:flex;flex-wrap:wrap">{"".join(shown)}</div>'
    advice = advice_of(run, captions)
    title = f"{name_of(run.meta('source'))}: {advice.sentence}"
    return block(title, paragraph(advice.because), facts(known), grid, more)


def _sheets(run: Run, captions: Sequence[Caption]) -> Iterator[str]:
    """A figure for each caption that has a sheet, until BUDGET is spent."""
    budget = BUDGET
    for caption in captions:
        file = run.path / folder_of(caption) / "sheets" / f"{caption.slug}.png"
        try:
            uri = data_uri(picture(file), SIDE)
        except RefusedError:  # there is no sheet, or the file is no picture
            continue
        budget -= len(uri)
        if budget < 0:
            return
        words = escaped(f"{caption.text}: {standing_text(caption)}")
        yield f'<figure style="margin:4px"><img src="{uri}" alt="{words}"><figcaption>{words}</figcaption></figure>'
