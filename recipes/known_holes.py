"""What pip-audit found, in words:

`python recipes/known_holes.py build/audit.json`. Part of `make audit`.

pip-audit ends well where it could look nothing up; that is not the same as nothing found. Ends with
status 1 if there are known holes, 2 if no package, or no answer at all, was looked up.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NAMED = 10  # packages that could not be looked up and are named
UNREACHED = (
    "the service that knows of holes (pypi.org) was not reached, nothing was looked up; the bill of"
    " materials is whole"
)


def told(report: str) -> tuple[int, list[str]]:
    """The exit status and the lines for the JSON that pip-audit wrote (empty: it could not ask).

    >>> told('{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not on PyPI"}]}')
    (0, ['1 package looked up: 0 known holes', '1 package could not be looked up: b'])
    >>> told("")[0]
    2
    """
    packages: list[dict[str, Any]] = json.loads(report)["dependencies"] if report.strip() else []
    known = [p for p in packages if "vulns" in p]
    skipped = [p["name"] for p in packages if "vulns" not in p]
    if not known:
        return 2, [UNREACHED]
    holes = [_hole(package, hole) for package in known for hole in package["vulns"]]
    lines = [*holes, f"{_count(len(known))} looked up: {len(holes)} known holes"]
    more = [f"and {len(skipped) - NAMED} more"] if len(skipped) > NAMED else []
    missed = (
        [f"{_count(len(skipped))} could not be looked up: {', '.join([*skipped[:NAMED], *more])}"]
        if skipped
        else []
    )
    return int(bool(holes)), [*lines, *missed]


def _hole(package: dict[str, Any], hole: dict[str, Any]) -> str:
    mended = (
        f"mended in {', '.join(hole['fix_versions'])}"
        if hole.get("fix_versions")
        else "not mended yet"
    )
    return f"{package['name']} {package['version']}: {hole['id']}, {mended}"


def _count(number: int) -> str:
    return f"{number} package{'s' * (number != 1)}"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    status, lines = told(place.read_text(encoding="utf-8") if place.exists() else "")
    print("\n".join(lines))
    sys.exit(status)
