"""Make studies by name, one after the other, in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from findnemo.errors import FindnemoError, InputError, StoppedError
from findnemo.studies._bench import Bench, Study, write
from findnemo.studies.registry import NEEDS, STUDIES, known, requested_studies


def study(names: Iterable[str], bench: Bench, folder: Path) -> dict[str, Study | FindnemoError]:
    """Make studies by name ("all" for every one), and write each and an index of them into
    `folder`.

    Results that the run keeps are not computed again. A study that cannot be made returns its
    error, and the others continue. Once the bench says stop, nothing more is begun. Raises
    InputError for an unknown name.
    """
    wanted = requested_studies(names)
    done: dict[str, Study | FindnemoError] = {}
    for name in wanted:
        if bench.stop():
            break
        try:
            done[name] = made = make(name, bench)
            settings = bench.made_with if STUDIES[name].pictured else ""
            write(made, folder, name, settings)
        except StoppedError:
            break
        except FindnemoError as error:
            done[name] = error
        except Exception as error:  # one faulty study must not cost the hours of the others
            done[name] = FindnemoError(f"{type(error).__name__} (unexpected): {error}")
    _index(folder)
    return done


def make(name: str, bench: Bench) -> Study:
    """One study by its name, with its tables and figures; no folder is written.

        make("table1", Bench(work, [])).tables[0].markdown()

    What is computed for captions is kept in the run, as by `study`. Raises InputError for an
    unknown name, or naming something needed that is missing; StoppedError once the bench says stop.
    """
    entry = known(name)
    for key in entry.lacks(bench.stock, entry.needs):
        need = NEEDS[key]
        raise InputError(
            f"needs {need.label}, {need.least} or more: there are {bench.stock[key]}"
            f" ({need.source})"
        )
    made: Study = getattr(import_module(f"findnemo.studies.{entry.home}"), name)(bench)
    return made


def _index(folder: Path) -> None:
    """Write README.md of the folder: a line for each of its studies."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [name for name in STUDIES if (folder / f"{name}.md").is_file()]
    lines = ["# Studies", "", *(f"- [{STUDIES[name].heading}]({name}.md)" for name in made)]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
