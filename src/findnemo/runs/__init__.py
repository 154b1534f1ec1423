"""Runs: the store, the audit over it, and its results as files."""

from findnemo.runs.audit import STAGES, Plan, Work, all_neurons, audit, neurons_of, start
from findnemo.runs.export import neurons_by_caption, row, summary, write_results
from findnemo.runs.repair import Repair, repair
from findnemo.runs.standing import STANDINGS, standing
from findnemo.runs.stopping import Stopping, stopping
from findnemo.runs.store import Caption, Run, acquire, refuse_foreign

__all__ = [
    "STAGES",
    "STANDINGS",
    "Caption",
    "Plan",
    "Repair",
    "Run",
    "Stopping",
    "Work",
    "acquire",
    "all_neurons",
    "audit",
    "neurons_by_caption",
    "neurons_of",
    "refuse_foreign",
    "repair",
    "row",
    "standing",
    "start",
    "stopping",
    "summary",
    "write_results",
]
