"""Studies by their names, one after the other, into a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from findnemo.errors import FindnemoError, StoppedError
from findnemo.studies._bench import Bench, Study, write
from findnemo.studies._registry import STUDIES, chosen


def study(names: Iterable[str], bench: Bench, folder: Path) -> dict[str, Study | FindnemoError]:
    """Do studies by name ("all" for every one), write each into `folder`, and an index of them;
    what the run knows is not done again.

    A study that cannot be done has the error for an answer, and the others go on. Once the bench
    says stop, no more is begun. Raises InputError for a name that is not known.
    """
    wanted = chosen(names)
    done: dict[str, Study | FindnemoError] = {}
    for name in wanted:
        if bench.stop():
            break
        try:
            done[name] = made = STUDIES[name](bench)
            settings = bench.made_with if STUDIES[name].pictured else ""
            write(made, folder, name, settings)
        except StoppedError:
            break
        except FindnemoError as error:
            done[name] = error
        except Exception as error:  # a study that is wrong shall not take hours of others with it
            done[name] = FindnemoError(f"{type(error).__name__} (unexpected): {error}")
    _index(folder)
    return done


def _index(folder: Path) -> None:
    """README.md of the folder: a line a study that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [name for name in STUDIES if (folder / f"{name}.md").is_file()]
    lines = ["# Studies", "", *(f"- [{STUDIES[name].heading}]({name}.md)" for name in made)]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
