"""Studies: the tables and figures of Finding NeMo from the runs of any model, and how
stable what they show is.

May be imported: the names below and the modules here. May import: runs, verification, localization
and what lies under them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from findnemo.errors import FindnemoError, InputError, StoppedError
from findnemo.studies._bench import Bench, Study, write
from findnemo.studies._ordinary import not_memorized, under_tau
from findnemo.studies._table import Table
from findnemo.studies.fig2 import fig2a, fig2b
from findnemo.studies.fig4 import fig4, fig7
from findnemo.studies.fig5 import fig5a, fig5b
from findnemo.studies.fig10 import fig10
from findnemo.studies.fig13 import fig13
from findnemo.studies.fig14 import fig14
from findnemo.studies.fig16 import fig16, fig20
from findnemo.studies.stability import stability
from findnemo.studies.table1 import table1
from findnemo.studies.table2 import table2
from findnemo.studies.table3 import table3
from findnemo.studies.table4 import table4
from findnemo.studies.utility import utility

__all__ = ["STUDIES", "Bench", "Study", "Table", "not_memorized", "study", "under_tau", "write"]

STUDIES: dict[str, Callable[[Bench], Study]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "fig2a": fig2a,
    "fig2b": fig2b,
    "fig4": fig4,
    "fig5a": fig5a,
    "fig5b": fig5b,
    "fig7": fig7,
    "fig10": fig10,
    "fig13": fig13,
    "fig14": fig14,
    "fig16": fig16,
    "fig20": fig20,
    "stability": stability,
    "utility": utility,
}


def study(names: Iterable[str], bench: Bench, folder: Path) -> dict[str, Study | FindnemoError]:
    """Do studies by name ("all" for every one), write each into `folder`, and an index of them;
    what the run knows is not done again.

    A study that cannot be done has the error for an answer, and the others go on. Once the bench
    says stop, no more is begun. Raises InputError for a name that is not known.
    """
    wanted = list(STUDIES) if list(names) == ["all"] else list(names)
    for name in wanted:
        if name not in STUDIES:
            raise InputError(f"study {name!r} is not known: use all, {', '.join(STUDIES)}")
    done: dict[str, Study | FindnemoError] = {}
    for name in wanted:
        if bench.stop():
            break
        try:
            done[name] = made = STUDIES[name](bench)
            write(made, folder, name)
        except StoppedError:
            break
        except FindnemoError as error:
            done[name] = error
        except Exception as error:  # a study that is wrong shall not take hours of others with it
            done[name] = FindnemoError(f"{type(error).__name__} (unexpected): {error}")
    _index(folder)
    return done


def _index(folder: Path) -> None:
    """README.md of the folder: a line a study, with its picture if it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Studies", ""]
    for name in STUDIES:
        file = folder / f"{name}.md"
        if file.is_file():
            title = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            lines.append(f"- [{title}]({name}.md)")
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
