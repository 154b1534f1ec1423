"""The one script of the report, which searches and sorts its captions, and its hash: the page's
policy allows no other script.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

SCRIPT = (Path(__file__).parent / "templates" / "captions.js").read_text(encoding="utf-8")
HASH = f"sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}"
