"""Say anew which model the demo's calibrations and its published benchmark results belong to:

`python recipes/demo_model/identity.py`.

For when findnemo keeps more of what identifies a model and the model is the same; statistics,
threshold and results stay what they are. Where scores change (`METHOD` was raised, the model was
trained anew), `assemble.py` and `findnemo benchmark` make them again instead.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import findnemo
from findnemo import demo
from findnemo.benchmark.results import place, published
from findnemo.calibration._calibration import digest_of


def identified(about: dict[str, Any], data: bytes, identity: Any) -> dict[str, Any]:
    """The description of a calibration with another identity, and the digest that it
    then has, if it had one.
    """
    kept = {key: value for key, value in about.items() if key not in ("identity", "digest")}
    made = {**kept, "model": identity.fingerprint, "identity": identity.to_json(pictures=False)}
    return made | ({"digest": digest_of(made, data)} if "digest" in about else {})


def main() -> None:
    identity = findnemo.load("demo", "cpu", "float32").identity
    for name in demo.CALIBRATIONS.values():
        file = demo.ASSETS / name / "calibration.json"
        data = file.with_suffix(".safetensors").read_bytes()
        about = identified(json.loads(file.read_text(encoding="utf-8")), data, identity)
        file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    known = published()
    member = {**known.members["demo"], "fingerprint": identity.fingerprint}
    replace(known, members={**known.members, "demo": member}).save(place())
    print(f"the demo model is {identity.fingerprint}")


if __name__ == "__main__":
    main()
