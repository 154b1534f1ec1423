"""findnemo: find the neurons with which a text-to-image diffusion model memorizes training
images, and switch them off.

    import findnemo

    model = findnemo.load("demo")
    calibration = findnemo.calibrate(model, holdout_captions)
    found = findnemo.localize(model, "a memorized caption", calibration)
    with findnemo.deactivate(model, found.neurons):
        image = model.pipeline(found.prompt).images[0]
    findnemo.prune(model, found.neurons).save_pretrained("clean")

Names are imported when they are first used, so that `import findnemo` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from findnemo._version import __version__

if TYPE_CHECKING:
    from findnemo import app as app
    from findnemo import demo as demo
    from findnemo import export as export
    from findnemo import tasks as tasks
    from findnemo.calibration import Calibration as Calibration
    from findnemo.calibration import activations as activations
    from findnemo.calibration import calibrate as calibrate
    from findnemo.calibration import import_statistics as import_statistics
    from findnemo.detection import Detection as Detection
    from findnemo.detection import detect as detect
    from findnemo.detection import detect_many as detect_many
    from findnemo.edits import deactivate as deactivate
    from findnemo.edits import prune as prune
    from findnemo.edits import save_lora as save_lora
    from findnemo.errors import FindnemoError as FindnemoError
    from findnemo.images import ImageSettings as ImageSettings
    from findnemo.images import generate as generate
    from findnemo.localization import Localization as Localization
    from findnemo.localization import localize as localize
    from findnemo.models import Model as Model
    from findnemo.models import load as load
    from findnemo.neurons import NeuronSet as NeuronSet
    from findnemo.passes import compiled as compiled
    from findnemo.passes import score as score
    from findnemo.prompts import read_prompts as read_prompts
    from findnemo.settings import Settings as Settings
    from findnemo.tasks import audit as audit
    from findnemo.tasks import compare as compare
    from findnemo.tasks import harden as harden
    from findnemo.tasks import study as study
    from findnemo.verification import verify as verify

_HOMES = {
    "calibration": ("Calibration", "activations", "calibrate", "import_statistics"),
    "detection": ("Detection", "detect", "detect_many"),
    "edits": ("deactivate", "prune", "save_lora"),
    "errors": ("FindnemoError",),
    "images": ("ImageSettings", "generate"),
    "localization": ("Localization", "localize"),
    "models": ("Model", "load"),
    "neurons": ("NeuronSet",),
    "passes": ("compiled", "score"),
    "prompts": ("read_prompts",),
    "settings": ("Settings",),
    "tasks": ("audit", "compare", "harden", "study"),
    "verification": ("verify",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

_MODULES = ("app", "demo", "export", "tasks")

__all__ = ["__version__", *_MODULES, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"findnemo.{name}")
    if name in _HOME:
        return getattr(import_module(f"findnemo.{_HOME[name]}"), name)
    raise AttributeError(f"module 'findnemo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
