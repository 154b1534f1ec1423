"""Original (training) images, from local files or the web.

Both the table that names them and the servers are untrusted.

    original = Originals("cache", "captions' folder")
    image = original("https://example.org/picture.jpg")  # a PIL image, or None
    original.failures  # {"https://example.org/picture.jpg": "answers 404"}

Requests go to public addresses only, and to exactly the address that was checked: a table of
captions must not make findnemo read the network behind a firewall. Bytes, pixels, redirects and
time are limited, and no server gets more than one request a second.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from findnemo.errors import InputError
from findnemo.files import fetch
from findnemo.files.fetch import RefusedError
from findnemo.files.secrets import without_secrets

if TYPE_CHECKING:
    from PIL import Image

REDIRECTS = 3
MOST_PIXELS = 50_000_000
MOST_FILE = 256 << 20  # largest local picture, in bytes; for the web see `_fetch`
LONGEST = 10_000  # characters of a reference
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
FAILURES = "failures.jsonl"
_OPENING = threading.Lock()  # all threads share the filters of warnings


class Originals:
    """A function of image references, as in a table of captions, that returns RGB images, or None
    and records why.

    `cache`: a directory for fetched files, unchanged and named by the SHA-256 of their URL, and for
    `failures.jsonl`; it is made when needed. `folder`: base of relative paths, that of the table. A
    reference is a path, relative or absolute, or an http(s) URL; other schemes are refused (a file
    with such a name is `./name:...`). `timeout`: seconds for one image with all its redirects.
    `pause`: seconds between two requests to a host. JPEG, PNG, WebP and the first picture of a GIF
    are read, of at most 50 megapixels and (from the web) 20 MB; they are rotated by their EXIF and
    put on white.

    `references`: complete references, whose secrets (tokens in a URL) are kept out of runs and
    files: a reference without its secrets is looked up among these.

    `failures`: reference -> reason. The object does not try a failed reference again. May be called
    from several threads. Raises InputError if the cache cannot be written.

    >>> import tempfile
    >>> from findnemo import demo
    >>> original = Originals(tempfile.mkdtemp(), demo.ASSETS)
    >>> original("images/moon.png").size, original("http://127.0.0.1/moon.png")
    ((64, 64), None)
    >>> original.failures
    {'http://127.0.0.1/moon.png': '127.0.0.1 is not a public address'}
    """

    def __init__(
        self,
        cache: str | os.PathLike,
        folder: str | os.PathLike = ".",
        timeout: float = 20.0,
        pause: float = 1.0,
        references: Iterable[str] = (),
    ) -> None:
        if not (timeout > 0 and pause >= 0):
            raise InputError(
                f"a timeout of {timeout} s and a pause of {pause} s: give a timeout above 0 and a"
                " pause of 0 or more"
            )
        self.cache = Path(cache)
        self.folder = Path(folder)
        self.timeout = timeout
        self.pause = pause
        self.failures: dict[str, str] = {}
        self._whole = {without_secrets(reference): reference for reference in references}
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}  # host -> lock of the one request to it
        self._free: dict[str, float] = {}  # host -> when the next request to it may be made

    def __call__(self, reference: str) -> Image.Image | None:
        """The image, RGB, or None if it is not available."""
        if reference in self.failures:
            return None
        try:
            if len(reference) > LONGEST:
                raise RefusedError(f"more than {LONGEST} characters")
            return self._image(reference)
        except RefusedError as refused:
            self._record(reference, str(refused))
            return None

    def of_caption(self, caption: Any) -> Image.Image | None:
        """The training image of a run's caption, if its `image` names one, for an audit
        (`Work.original`).
        """
        return self(caption.image) if caption.image else None

    def _image(self, reference: str) -> Image.Image:
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", reference):
            return from_file(self.folder / reference)
        kept = self.cache / kept_name(reference)
        if kept.is_file():
            return from_file(kept)
        data = self._fetch(self._whole.get(reference, reference))
        image = decode(io.BytesIO(data))
        self._write(kept, data)
        return image

    def _fetch(self, url: str) -> bytes:
        """The bytes behind a URL. Every redirect is checked like the URL itself."""
        deadline = time.monotonic() + self.timeout
        for _ in range(REDIRECTS + 1):
            parts = fetch.checked_url(url)
            with self._turn(str(parts.hostname)) as waited:
                deadline += waited
                answer = fetch.get(parts, deadline)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise RefusedError(f"more than {REDIRECTS} redirects")

    @contextmanager
    def _turn(self, host: str) -> Iterator[float]:
        """One request at a time to a host, with a pause between two; yields the seconds waited."""
        with self._lock:
            mine = self._turns.setdefault(host, threading.Lock())
        began = time.monotonic()
        with mine:
            time.sleep(max(0.0, self._free.get(host, 0.0) - time.monotonic()))
            try:
                yield time.monotonic() - began
            finally:
                self._free[host] = time.monotonic() + self.pause

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        with self._writing():
            part.write_bytes(data)
            part.replace(path)

    def _record(self, reference: str, reason: str) -> None:
        entry = {
            "image": without_secrets(reference)[:2000],
            "reason": reason,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with self._lock:
            self.failures[reference] = reason
            with self._writing(), (self.cache / FAILURES).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The cache, made if missing. Raises InputError if it cannot be written."""
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise InputError(
                f"{self.cache} cannot be written ({error.strerror}): free it, or name another"
                " folder"
            ) from error


def kept_name(url: str) -> str:
    """The file name in the cache for a URL, with or without its secrets."""
    return hashlib.sha256(without_secrets(url).encode(errors="surrogatepass")).hexdigest()


# pictures -----------------------------------------------------------------------------------------


def from_file(path: Path) -> Image.Image:
    """An RGB image of a file. Raises RefusedError for anything else."""
    try:
        if not path.is_file():  # no devices or pipes, which could block for ever
            raise RefusedError("no such file")
        if path.stat().st_size > MOST_FILE:
            raise RefusedError(f"more than {MOST_FILE >> 20} MiB")
        with path.open("rb") as file:
            return decode(file)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise RefusedError(f"cannot be opened ({why})") from None


def picture(path: str | os.PathLike) -> Image.Image:
    """An RGB picture of a run directory.

    Raises RefusedError naming it for anything else, within the limits of `Originals`.
    """
    try:
        return from_file(Path(path))
    except RefusedError as refused:
        raise RefusedError(f"{path}: {refused}") from None


def decode(file: IO[bytes]) -> Image.Image:
    """An RGB image from the content of a file.

    Its format and size are checked before anything is decoded. Raises RefusedError.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise RefusedError(
                f"{image.width} x {image.height} pixels, more than {MOST_PIXELS // 10**6}"
                " megapixels"
            )
        return _on_white(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RefusedError(f"more than {MOST_PIXELS // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise RefusedError(f"not an image that is read ({', '.join(FORMATS)})") from None
    except RefusedError:
        raise
    except Exception as error:  # decoders raise anything on bytes made to break them
        raise RefusedError(f"a broken image ({type(error).__name__}: {error!s:.100})") from None


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits, which a conversion would clip at 255
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
