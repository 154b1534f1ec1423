"""Check that work on a run goes on with the model that the run was begun with.

The autoencoder and the sampler count too where pictures are made.
"""

from __future__ import annotations

from typing import Any

from findnemo.errors import MismatchError
from findnemo.models.identity import PICTURES, Identity, kept_identity, refuse_other
from findnemo.runs.store import Run

# value of the run: the parts that first made pictures, in runs whose settings do not keep them
MADE_WITH = "pictures"
WAY_OUT = "give that model, or a new --out"


def require_same(run: Run, model: Any, pictures: bool = False) -> None:
    """Raises MismatchError naming what differs between this model and the model of the run.

    `pictures`: finished images will be made. A run that was begun without images then keeps the
    parts that its images depend on, when the first images are made.
    """
    settings = run.meta("settings")
    if (kept := kept_identity(settings.get("identity"))) is None:
        return  # an earlier findnemo began this run: nothing is added (`Run.create`)
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
