"""Runs: the store, the audit over it, and its results as files."""

from findnemo.runs._places import refuse_links
from findnemo.runs.audit import STAGES, Plan, Work, all_neurons, audit, neurons_of, start
from findnemo.runs.export import neurons_by_caption, row, summary, write_results
from findnemo.runs.standing import STANDINGS, standing
from findnemo.runs.store import Caption, Run, acquire, refuse_foreign
from findnemo.runs.whole import captions_of, settings_of

__all__ = [
    "STAGES",
    "STANDINGS",
    "Caption",
    "Plan",
    "Run",
    "Work",
    "acquire",
    "all_neurons",
    "audit",
    "captions_of",
    "neurons_by_caption",
    "neurons_of",
    "refuse_foreign",
    "refuse_links",
    "row",
    "settings_of",
    "standing",
    "start",
    "summary",
    "write_results",
]
