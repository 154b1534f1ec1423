"""Put a trained member together as the package's second demo:

`python recipes/natural/assemble.py build/natural/full`.

Writes its difference, captions, pictures, card and a calibration.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import findnemo
from findnemo import demo


def main(member: Path) -> None:
    out = demo.NATURAL
    truth = json.loads((member / "truth.json").read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(member / "difference.safetensors", out)
    (out / "difference.safetensors").chmod(0o644)
    shutil.copy(member / "README.md", out)
    shutil.copy(member / "truth.json", out)
    shutil.copytree(member / "pictures", out / "pictures", dirs_exist_ok=True)
    with (out / "memorized.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["caption", "type", "image"])
        table.writerows(
            [m["caption"], m["type"], m["image"]] for m in truth["memories"] if m["copied"]
        )
    model = findnemo.load("demo-natural", "cpu", "float32")
    findnemo.calibrate(model, demo.holdout()).save(out / "calibration")
    findnemo.calibrate(model, demo.holdout(), "findnemo", fpr=0.05).save(
        out / "calibration-findnemo"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
