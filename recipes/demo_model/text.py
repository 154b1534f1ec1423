"""Tokenizer and CLIP (text and vision) of the demo model."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from memories import MEMORIES
from pool import Log, Pool, cosine_lr, to_tensor
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

START = "<|startoftext|>"
END = "<|endoftext|>"
WIDTH = 128
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(captions: list[str], folder: Path, merges: int = 900) -> CLIPTokenizer:
    """A byte-level BPE with CLIP's vocabulary layout: bytes, bytes ending a word,
    merges, the two special tokens.
    """
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=512 + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator(captions + [m.caption for m in MEMORIES], trainer)
    pairs = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in _merges(trained)]
    words = dict.fromkeys(
        alphabet + [a + "</w>" for a in alphabet] + ["".join(p) for p in pairs] + [START, END]
    )
    vocab = {word: k for k, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list:
    import json

    return json.loads(tokenizer.to_str())["model"]["merges"]


def clip_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    text |= {
        "projection_dim": 64,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text |= {"pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 77}
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "projection_dim": 64,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)


def train_clip(
    pool: Pool,
    tokenizer: CLIPTokenizer,
    folder: Path,
    steps: int,
    device: str,
    log: Log,
    batch: int = 128,
) -> CLIPModel:
    """Contrastive training; a linear head also asks the end-of-text state for the caption's
    words, so that names are not forgotten.
    """
    torch.manual_seed(1)
    model = CLIPModel(clip_config(tokenizer)).to(device).train()
    words = torch.nn.Linear(WIDTH, len(tokenizer)).to(device)
    optimizer = torch.optim.AdamW([*model.parameters(), *words.parameters()], weight_decay=0.02)
    pictures, captions = pool.captioned()
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="np")[
        "input_ids"
    ]
    rng = np.random.default_rng(1)
    started = time.time()
    for step in range(steps):
        cosine_lr(optimizer, step / steps, 1e-3)
        chosen = rng.choice(len(captions), batch, replace=False)
        ids = torch.from_numpy(tokens[chosen]).to(device)
        longest = int((ids != tokenizer.pad_token_id).sum(1).max()) + 1
        ids = ids[:, :longest]
        image = model.get_image_features(to_tensor(pictures[chosen], device)).pooler_output
        states = model.text_model(input_ids=ids)
        text = model.text_projection(states.pooler_output)
        logits = (
            model.logit_scale.exp().clamp(max=100)
            * F.normalize(text, dim=-1)
            @ F.normalize(image, dim=-1).T
        )
        same = torch.from_numpy(
            np.equal.outer(
                np.array(captions, object)[chosen], np.array(captions, object)[chosen]
            ).astype(bool)
        ).to(device)
        logits = logits.masked_fill(same & ~torch.eye(batch, dtype=torch.bool, device=device), -1e4)
        target = torch.arange(batch, device=device)
        contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        present = torch.zeros(batch, len(tokenizer), device=device).scatter_(1, ids, 1.0)
        present[:, [tokenizer.bos_token_id, tokenizer.eos_token_id]] = 0
        recall = (
            -(
                F.log_softmax(words(states.pooler_output), -1)
                * present
                / present.sum(1, keepdim=True)
            )
            .sum(1)
            .mean()
        )
        loss = contrastive + 0.3 * recall
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            hit = (logits.argmax(1) == target).float().mean()
            log(
                f"clip {step}/{steps} contrastive {contrastive:.3f} words {recall:.3f} top-1"
                f" {hit:.2f} {time.time() - started:.0f}s"
            )
    model.eval().half().save_pretrained(folder)
    return model.float()
