"""The one script of the report, which searches and sorts its captions, and the hash by which alone
the page's policy lets it run.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

SCRIPT = (Path(__file__).parent / "templates" / "captions.js").read_text(encoding="utf-8")
HASH = f"sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}"
