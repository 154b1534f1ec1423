"""Runs: the store, the audit over it, and its results as files.

May be imported: the names below and the modules here. May import: detection, localization,
verification, robustness, training, demo and what lies under them.
"""

from findnemo.runs import _html as _html  # says how a notebook shows a run
from findnemo.runs._lock import acquire
from findnemo.runs._places import refuse_links
from findnemo.runs.audit import answer, audit, start
from findnemo.runs.calibrating import calibrate_with
from findnemo.runs.discoveries import (
    Discoveries,
    discoveries,
    list_of,
    list_told,
    p_values,
    q_values,
)
from findnemo.runs.export import (
    ASKED,
    any_failed,
    any_memorized,
    captions_to_show,
    counts,
    row,
    summary,
    write_results,
)
from findnemo.runs.inspecting import Inspection, inspect
from findnemo.runs.merge import merge
from findnemo.runs.repair import repair
from findnemo.runs.standing import (
    BAD,
    STANDINGS,
    STATES,
    all_neurons,
    dear,
    failures,
    neurons_of,
    points_of,
    prefix_of,
    standing,
    state,
    switched_off,
)
from findnemo.runs.stopping import stopping
from findnemo.runs.store import (
    Caption,
    Run,
    captions_named,
    captions_of,
    refuse_foreign,
    settings_of,
)
from findnemo.runs.table import Shard, ask_all, enter
from findnemo.runs.work import AuditPlan, StageAnswer, Work
from findnemo.runs.workers import (
    Dispatch,
    Facts,
    Loader,
    Outcome,
    Pool,
    Serial,
    Unit,
    WorkerTask,
    drive,
)

__all__ = [
    "ASKED",
    "BAD",
    "STANDINGS",
    "STATES",
    "AuditPlan",
    "Caption",
    "Discoveries",
    "Dispatch",
    "Facts",
    "Inspection",
    "Loader",
    "Outcome",
    "Pool",
    "Run",
    "Serial",
    "Shard",
    "StageAnswer",
    "Unit",
    "Work",
    "WorkerTask",
    "acquire",
    "all_neurons",
    "answer",
    "any_failed",
    "any_memorized",
    "ask_all",
    "audit",
    "calibrate_with",
    "captions_named",
    "captions_of",
    "captions_to_show",
    "counts",
    "dear",
    "discoveries",
    "drive",
    "enter",
    "failures",
    "inspect",
    "list_of",
    "list_told",
    "merge",
    "neurons_of",
    "p_values",
    "points_of",
    "prefix_of",
    "q_values",
    "refuse_foreign",
    "refuse_links",
    "repair",
    "row",
    "settings_of",
    "standing",
    "start",
    "state",
    "stopping",
    "summary",
    "switched_off",
    "write_results",
]
