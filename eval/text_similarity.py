"""How alike two phrases are, behind one function: a text encoder, as in the original, or the head-word rule, which needs no model.

An encoder's value is the cosine of two embeddings, and an embedding is the mean of the last hidden state over all tokens, those
of `[CLS]` and `[SEP]` too, as the original does with bert-base-uncased. The original runs the encoder twice for every pair of
every frame; here every distinct phrase is run once, in batches.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from dataset_builders.command_line import progress

# The default model of every encoder; "bert" is what the original's code has for Recall.
ENCODERS = {"bert": "bert-base-uncased", "sentence": "sentence-transformers/all-MiniLM-L6-v2"}
HEAD_WORD = "head-word"
TEXT_SIMILARITIES = (*ENCODERS, HEAD_WORD)

# Tokens of a phrase where neither tokenizer nor model say how many they take; BERT's number.
_MOST_TOKENS = 512


class TextSimilarity(Protocol):
    """Says how alike phrases are. `name` is what results are marked with."""

    name: str

    def prepare(self, phrases: Iterable[str]) -> None:
        """Does the costly part for these phrases at once. Calls are right without it, only slower."""

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Similarities `(n, m)`, float64, of n phrases to m others. A phrase that is no string raises `TypeError`."""


def text_similarity(
    name: str = "bert", model: str | None = None, device: str | None = None, batch_size: int = 64
) -> TextSimilarity:
    """
    A text similarity by name.

    Args:
        name (`str`, defaults to `"bert"`): `"bert"`, `"sentence"` or `"head-word"`.
        model (`str`, *optional*): A local folder or Hub id of the encoder, instead of the name's default.
        device (`str`, *optional*): Where the encoder runs; CUDA if there is any, else the CPU.
        batch_size (`int`, defaults to 64): Phrases of one forward pass.

    Raises:
        `ValueError`: if there is no such name, the head-word rule is given a model, or the model cannot be loaded.
    """
    if name not in TEXT_SIMILARITIES:
        raise ValueError(f"text similarity: got {name!r}; expected one of {', '.join(TEXT_SIMILARITIES)}")
    if name != HEAD_WORD:
        return EncoderSimilarity(name, model or ENCODERS[name], device, batch_size)
    if model is not None:
        raise ValueError(f"text similarity: {HEAD_WORD!r} has no model, got {model!r}; leave the model out")
    return HeadWordSimilarity()


def encoder_device(device: str | None = None) -> str:
    """Where an encoder runs: on the device that is named, else on CUDA if there is any, else on the CPU."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


class EncoderSimilarity:
    """
    The cosine of mean-pooled hidden states of a text encoder, in float32. Phrases go in as they are: what lower-casing there is
    is the tokenizer's.

    Args:
        name (`str`): What results are marked with.
        model (`str`): A local folder or Hub id.
        device (`str`, *optional*), batch_size (`int`): see [`text_similarity`].

    Raises:
        `ValueError`: if the model cannot be loaded.
    """

    def __init__(self, name: str, model: str, device: str | None = None, batch_size: int = 64) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        if not sys.stderr.isatty():
            transformers_logging.disable_progress_bar()
        self.name, self.batch_size = name, batch_size
        self.device = encoder_device(device)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
            self._model: Any = AutoModel.from_pretrained(model, dtype=torch.float32).to(self.device).eval()
            self._embeddings = np.zeros((0, self._model.config.hidden_size))
        # A model of another kind has no `hidden_size`; a device that is not there is a RuntimeError or AssertionError.
        except (OSError, ValueError, AttributeError, RuntimeError, AssertionError, SafetensorError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"text model {model!r} cannot be loaded on {self.device} ({reason}); expected a text encoder on the Hub or in a "
                f"local folder: pass a folder (--text-model), or use the rule that needs no model ({HEAD_WORD})"
            ) from error
        limits = (
            self._tokenizer.model_max_length,
            getattr(self._model.config, "max_position_embeddings", _MOST_TOKENS),
        )
        self._most_tokens = min(limits)
        self._rows: dict[str, int] = {}

    def prepare(self, phrases: Iterable[str]) -> None:
        """Embeds those of the phrases that were not embedded before."""
        new = [phrase for phrase in dict.fromkeys(_checked(phrases)) if phrase not in self._rows]
        if not new:
            return
        # Phrases of one length need no padding; a batch of neighbours needs little.
        new.sort(key=len)
        batches = [new[start : start + self.batch_size] for start in range(0, len(new), self.batch_size)]
        shown = batches if len(batches) == 1 else progress(batches, "embedding phrases", unit="batch")
        embedded = np.concatenate([self._embed(batch) for batch in shown])
        norms = np.linalg.norm(embedded, axis=1, keepdims=True)
        self._rows.update({phrase: len(self._rows) + n for n, phrase in enumerate(new)})
        self._embeddings = np.concatenate([self._embeddings, embedded / np.maximum(norms, 1e-12)])

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Cosines `(n, m)`, float64, of n phrases to m others."""
        self.prepare([*first, *second])
        rows = [self._rows[phrase] for phrase in first]
        columns = [self._rows[phrase] for phrase in second]
        similarity: np.ndarray = self._embeddings[rows] @ self._embeddings[columns].T
        return similarity

    def _embed(self, phrases: list[str]) -> np.ndarray:
        """Means of the last hidden state over the tokens of every phrase, `(n, D)` float64."""
        import torch

        tokens = self._tokenizer(
            phrases, padding=True, truncation=True, max_length=self._most_tokens, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            hidden = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            means = (hidden * mask).sum(1) / mask.sum(1)
        embedded: np.ndarray = means.cpu().double().numpy()
        return embedded


class HeadWordSimilarity:
    """1.0 where the last words of both phrases are equal after lower-casing, else 0.0. A phrase without words has the word ''."""

    name = HEAD_WORD

    def prepare(self, phrases: Iterable[str]) -> None:
        """Nothing: the rule costs nothing."""

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Zeros and ones `(n, m)`, float64, of n phrases to m others."""
        words = [
            np.array([_last_word(phrase) for phrase in _checked(phrases)], dtype=str) for phrases in (first, second)
        ]
        return (words[0][:, None] == words[1][None, :]).astype(np.float64)


def _last_word(phrase: str) -> str:
    return (phrase.split() or [""])[-1].lower()


def _checked(phrases: Iterable[str]) -> list[str]:
    phrases = list(phrases)
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise TypeError(f"phrase: got {phrase!r} ({type(phrase).__name__}), expected a string")
    return phrases


__all__ = [
    "ENCODERS",
    "HEAD_WORD",
    "TEXT_SIMILARITIES",
    "EncoderSimilarity",
    "HeadWordSimilarity",
    "TextSimilarity",
    "encoder_device",
    "text_similarity",
]
