"""The command `repair`: what a damaged run still holds, and what is lost."""

from __future__ import annotations

from findnemo.cli._common import JsonOpt, QuietOpt, RunArg, plain, print_json, stdout


def repair(run: RunArg, json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Check a run, and put right what a bad disk or a bad copy has damaged. What is lost is named; the next audit answers it again.

    The damaged files are kept beside the new ones. A run that is whole is left as it is. No model is loaded.

    Example: `findnemo repair run`

    Example: `findnemo repair run --json`
    """
    from dataclasses import asdict

    from findnemo.runs import repair as api

    found = api(run)
    if json:
        print_json(
            {
                name: [str(v) for v in value] if isinstance(value, tuple) else value
                for name, value in asdict(found).items()
            }
            | {"path": str(run)}
        )
    elif not quiet:
        for line in found.text().splitlines():
            stdout.print(plain(line), soft_wrap=True)
