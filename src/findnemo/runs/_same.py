"""Is it still the model of the run?

Checked wherever work on a run begins; pictures are of one autoencoder and one sampler as well.
"""

from __future__ import annotations

from typing import Any

from findnemo.errors import MismatchError
from findnemo.models._identity import PICTURES, Identity, kept_identity, refuse_other
from findnemo.runs.store import Run

# value of the run: the parts with which pictures were first made, where its settings do not keep
# them
MADE_WITH = "pictures"
WAY_OUT = "give that model, or a new --out"


def require_same(run: Run, model: Any, pictures: bool = False) -> None:
    """Refuse to go on with another model than a run was begun with.

    `pictures`: finished images are to be made with it.

    A run that was begun without images keeps what they depend on when the first are made. Raises
    MismatchError naming what differs.
    """
    settings = run.meta("settings")
    if (kept := kept_identity(settings.get("identity"))) is None:
        return  # begun by an earlier findnemo: nothing is added to it (`Run.create`)
    refuse_other(model, str(settings.get("model")), kept, str(run.path), WAY_OUT)
    if not pictures or PICTURES[1] in kept.parts:
        return
    now = model.identity
    first = kept_identity(run.meta(MADE_WITH))
    if first is None:
        run.set_meta(
            MADE_WITH, {name: part for name, part in now.to_json().items() if name in PICTURES}
        )
    elif difference := now.differences(Identity({**now.parts, **first.parts})):
        raise MismatchError(
            f"the pictures in {run.path} were made with another model: {'; '.join(difference)};"
            f" {WAY_OUT}"
        )
