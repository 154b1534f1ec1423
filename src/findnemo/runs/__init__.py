"""Runs: the store, the audit over it, and its results as files."""

from findnemo.runs.audit import STAGES, Plan, Work, all_neurons, audit, neurons_of, start
from findnemo.runs.discoveries import Discoveries, discoveries, list_of, q_values, told
from findnemo.runs.export import neurons_by_caption, row, summary, write_results
from findnemo.runs.standing import STANDINGS, standing
from findnemo.runs.store import Caption, Run, acquire, refuse_foreign

__all__ = [
    "STAGES",
    "STANDINGS",
    "Caption",
    "Discoveries",
    "Plan",
    "Run",
    "Work",
    "acquire",
    "all_neurons",
    "audit",
    "discoveries",
    "list_of",
    "neurons_by_caption",
    "neurons_of",
    "q_values",
    "refuse_foreign",
    "row",
    "standing",
    "start",
    "summary",
    "told",
    "write_results",
]
