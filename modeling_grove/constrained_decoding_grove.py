"""Constrained decoding: keeps the `<p> ... </p> [DET]` marks of a generated caption well-formed."""

import torch
from torch import Tensor
from transformers import LogitsProcessor


class GroundedCaptionLogitsProcessor(LogitsProcessor):
    """
    Keeps a generated caption well-formed: phrases are `<p> ... </p> [DET]`, not nested, not empty and closed before the end.

    Args:
        prompt_length (`int`): where the caption starts in `input_ids`.
        max_length (`int`): length at which generation stops; an open phrase is closed before it.
        phrase_start_token_id, phrase_end_token_id, det_token_id (`int`): ids of `<p>`, `</p>` and `[DET]`.
        eos_token_ids (`list[int]`): ids that end the caption.
        blank_token_id (`int`, *optional*): the piece that the tokenizer puts between `</p>` and `[DET]`, if it does.
    """

    def __init__(
        self,
        prompt_length: int,
        max_length: int,
        phrase_start_token_id: int,
        phrase_end_token_id: int,
        det_token_id: int,
        eos_token_ids: list[int],
        blank_token_id: int | None = None,
    ):
        self.prompt_length = prompt_length
        self.max_length = max_length
        self.start, self.end, self.det = phrase_start_token_id, phrase_end_token_id, det_token_id
        self.eos = eos_token_ids
        self.blank = blank_token_id
        # What still has to fit behind a phrase: </p>, the blank, [DET].
        self.closing_length = 2 if blank_token_id is None else 3

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        caption = input_ids[:, self.prompt_length :]
        left = self.max_length - input_ids.shape[1]
        opened = (caption == self.start).sum(1)
        inside = opened > (caption == self.end).sum(1)
        awaits_det = (~inside) & (opened > (caption == self.det).sum(1))
        last = caption[:, -1] if caption.shape[1] else caption.new_full((len(caption),), -1)
        before = caption[:, -2] if caption.shape[1] > 1 else torch.full_like(last, -1)
        # `<p>` is followed by a word, which a blank piece alone is not.
        empty = inside & (
            (last == self.start) | ((last == self.blank if self.blank is not None else False) & (before == self.start))
        )

        banned = torch.zeros_like(scores, dtype=torch.bool)
        outside = ~inside & ~awaits_det
        banned[outside, self.end] = True
        banned[outside, self.det] = True
        if left < self.closing_length + 3:  # <p>, a word, </p> ..., and the end of the sentence
            banned[outside, self.start] = True
        for token in (self.start, self.det, *self.eos):
            banned[inside, token] = True
        banned[empty, self.end] = True
        if self.blank is not None:
            banned[empty & (last == self.blank), self.blank] = True
        scores = scores.masked_fill(banned, -torch.inf)

        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed[awaits_det, self.det] = True
        if self.blank is not None:
            # The tokenizer writes "</p> [DET]" with a blank piece between; once it is there only [DET] may follow.
            allowed[awaits_det & (last == self.end), self.blank] = left >= 2
            allowed[awaits_det & (last == self.end), self.det] = left < 2
        must_close = inside & ~empty & (left <= self.closing_length)
        allowed[must_close, self.end] = True
        forced = awaits_det | must_close
        # Another processor (no repeated n-grams, say) may have ruled out the only token that is left.
        scores = scores.masked_fill(allowed & scores.isneginf(), 0.0)
        return scores.masked_fill(forced[:, None] & ~allowed, -torch.inf)


__all__ = ["GroundedCaptionLogitsProcessor"]
