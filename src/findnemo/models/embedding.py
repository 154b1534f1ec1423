"""Textual-inversion embeddings: new tokens, added to tokenizers and text encoders.

Two forms are read: that of diffusers (a tensor under the name of each token), and that of
AUTOMATIC1111 and kohya's trainer (`emb_params`; `clip_l` and `clip_g` for the two encoders of
SDXL). A tensor of several vectors becomes several tokens, TOKEN, TOKEN_1, ..., which pipelines
insert for TOKEN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from findnemo.errors import InputError, ModelError
from findnemo.files.sizes import TENSOR_BYTES, within_size
from findnemo.files.tensors import DTYPES, PICKLED, read_header, read_tensor

# tensor name that is no token -> number of its text encoder
UNNAMED = {"emb_params": "", "clip_l": "", "clip_g": "_2"}


@dataclass(frozen=True)
class Embedding:
    """A token of a file, its vectors (count, width), and the suffix ("" or "_2") of its tokenizer
    and text encoder.
    """

    file: str
    token: str
    vectors: Tensor = field(repr=False)
    encoder: str = ""

    @property
    def tokens(self) -> list[str]:
        """The token of each vector, as diffusers names them."""
        return [self.token, *(f"{self.token}_{k}" for k in range(1, len(self.vectors)))]


def read_embeddings(named: str) -> list[Embedding]:
    """The embeddings of "FILE" or "FILE:TOKEN", several separated by commas.

    TOKEN is the word in captions; by default the token in the file, else the file's name without
    suffix. Raises InputError for anything but such a file, ModelError for a pickle and for tensors
    that are no embedding.

        read_embeddings("style.safetensors,person.safetensors:<someone>")
    """
    file, token = _of_token(named)
    alone = Path(file).exists() and "," not in (token or "")
    names = [named] if alone else named.split(",")
    return [embedding for name in names for embedding in _read(*_of_token(name.strip()))]


def _of_token(name: str) -> tuple[str, str | None]:
    """File and token of a name; an existing path with a colon is a path."""
    file, colon, token = name.rpartition(":")
    if not colon or Path(name).exists() or not Path(file).exists():
        return name, None
    return file, token


def _read(file: str, token: str | None) -> list[Embedding]:
    path = Path(file)
    if path.is_dir() or not path.exists():
        raise InputError(
            f"no embedding {file!r:.300}: give a .safetensors file, or FILE:TOKEN; several are"
            " separated by commas"
        )
    within_size(path, TENSOR_BYTES)
    with path.open("rb") as opened:
        pickled = opened.read(8).startswith(PICKLED)
    if pickled:
        raise ModelError(
            f"{path} is a pickle, and a pickle can run code: take the embedding's .safetensors"
            " file, or convert it in a place you trust"
        )
    entries, _ = read_header(path)
    named = [name for name in entries if name not in UNNAMED]
    if not entries or (named and len(named) < len(entries)):
        raise ModelError(
            f"{path} holds {', '.join(entries) or 'no tensors'!s:.200}: that is no textual"
            " inversion"
        )
    if token == "" or (token is not None and len(named) > 1):
        raise InputError(
            f"{path} holds {len(entries)} tensors: give one token of at least one letter after the"
            " colon, or leave the colon out"
        )
    embeddings = []
    for name, entry in entries.items():
        own = path.stem if name in UNNAMED else name
        kind = DTYPES.get(entry.dtype)
        if kind is None or not kind.is_floating_point or len(entry.shape) not in (1, 2):
            raise ModelError(
                f"{name!s:.80} of {path} is {entry.dtype} {entry.shape}: that is no textual"
                " inversion, whose vectors are real numbers (count, width)"
            )
        vectors = read_tensor(path, entry)
        if not vectors.numel() or not bool(vectors.float().isfinite().all()):
            raise ModelError(f"{name!s:.80} of {path} is empty or not finite")
        rows = vectors.reshape(-1, vectors.shape[-1])
        embeddings.append(Embedding(file, token or own, rows, UNNAMED.get(name, "")))
    return embeddings


def add_embeddings(embeddings: Sequence[Embedding], pipeline: Any) -> None:
    """Add tokens to the tokenizers and text encoders of a pipeline, as its own
    `load_textual_inversion` does, after checking that all fit.

    Raises ModelError for an embedding of another model, InputError for a token that exists already.
    """
    kind = type(pipeline).__name__
    added: set[tuple[str, str]] = set()
    for one in embeddings:
        if not hasattr(pipeline, "load_textual_inversion"):
            raise ModelError(f"{kind} takes no textual inversions: leave {one.file} out")
        tokenizer = getattr(pipeline, f"tokenizer{one.encoder}", None)
        encoder = getattr(pipeline, f"text_encoder{one.encoder}", None)
        if tokenizer is None or encoder is None:
            raise ModelError(
                f"{one.file} is for text_encoder{one.encoder}, which this {kind} does not have: it"
                " is for another base model (clip_g is of SDXL)"
            )
        width = encoder.get_input_embeddings().weight.shape[-1]
        if one.vectors.shape[-1] != width:
            raise ModelError(
                f"{one.file} has vectors of {one.vectors.shape[-1]} values, and"
                f" text_encoder{one.encoder} of this {kind} reads {width}: it is for another base"
                " model"
            )
        known = tokenizer.get_vocab()
        for token in (*one.tokens, f"{one.token}_1"):
            if token in known or (one.encoder, token) in added:
                raise InputError(
                    f"{one.file} is to be {one.token!r:.80}, and the tokenizer has {token!r:.80}"
                    " already: give another name, FILE:TOKEN"
                )
        added |= {(one.encoder, token) for token in one.tokens}
    for one in embeddings:
        pipeline.load_textual_inversion(
            {one.token: one.vectors},
            tokenizer=getattr(pipeline, f"tokenizer{one.encoder}"),
            text_encoder=getattr(pipeline, f"text_encoder{one.encoder}"),
        )
