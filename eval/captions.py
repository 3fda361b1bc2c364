"""BLEU, METEOR, ROUGE-L and CIDEr of captions, as in the original: the scorers of pycocoevalcap on Penn Treebank tokens.

The original (COCOEvalCap, one caption a clip, all scores over the whole corpus):
- tokens are those of CoreNLP 3.4.1, lower-cased, without punctuation. As lower-casing comes first, brackets survive as `-lrb-`;
- CIDEr counts in how many references an n-gram occurs, over the references of the scored clips only: a single clip scores 0,
  and leaving clips out changes the scores of the others;
- METEOR of the corpus is computed from summed statistics and is not the mean over clips, nor is BLEU;
- the captions are handed to the tokenizer as lines, but only `"\\n"` is replaced in them. Any other line separator makes one
  line more, and **all captions after it are scored as those of the wrong clips** (`clean=False`). With `clean=True`, what the
  corrected protocol uses, separators become blanks and nothing shifts.

SPICE is left out: neither the paper nor the models of its parser have it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .caption_jars import MeteorError, close_meteor, jar_tokens, java_problem, meteor_process, package_folder
from .ptb_tokenizer import LINE_SEPARATORS, python_tokens

logger = logging.getLogger(__name__)

# Tokens that are no words, as pycocoevalcap lists them. Lower-cased text never has the brackets.
PUNCTUATION = frozenset(
    ("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", "-LRB-", "-RRB-", "-LCB-", "-RCB-")
)
_SEPARATOR = re.compile(f"[{LINE_SEPARATORS}]")


@dataclass
class CaptionScores:
    """
    Scores of captions, as fractions (CIDEr: 0 to 10).

    Attributes:
        corpus (`dict[str, float]`): `Bleu_1` to `Bleu_4`, `METEOR` (where it could be computed), `ROUGE_L`, `CIDEr`.
        per_clip (`dict[str, dict[str, float]]`): the same by clip.
        reference_tokens (`dict[str, str]`), prediction_tokens (`dict[str, str]`): what was scored, by clip.
        tokenizer (`str`): `"corenlp"`, or `"python"` where there is no Java.
        notes (`list[str]`): what the reader of the scores must know.
        separators (`int`): captions with a line separator other than `"\\n"`, which shift the original's.
    """

    corpus: dict[str, float]
    per_clip: dict[str, dict[str, float]]
    reference_tokens: dict[str, str]
    prediction_tokens: dict[str, str]
    tokenizer: str
    notes: list[str] = field(default_factory=list)
    separators: int = 0


def score_captions(
    references: Mapping[str, str], predictions: Mapping[str, str], *, clean: bool = True, meteor: bool = True
) -> CaptionScores:
    """
    Scores a caption for every clip.

    Args:
        references (`Mapping[str, str]`): Annotated captions by clip; their order is that of the clips.
        predictions (`Mapping[str, str]`): Predicted captions of the same clips. An empty one scores 0.
        clean (`bool`, defaults to `True`): Whether line separators become blanks; else they shift captions as in the original.
        meteor (`bool`, defaults to `True`): Whether METEOR, the slowest, is computed.

    Raises:
        `ValueError`: if there are no clips, the clips differ, a caption is no text, no reference has a word, or
            pycocoevalcap is not installed.
    """
    _check(references, predictions)
    package_folder()
    notes, problem = [], java_problem()
    if problem is not None:
        notes.append(
            f"Java cannot be used ({problem}): METEOR is left out, and the other scores are on tokens of a Python tokenizer "
            f"that is nearly CoreNLP's; install a Java runtime (Debian: `apt install default-jre-headless`)"
        )
        logger.warning("%s", notes[0])
    elif meteor:
        # It loads its tables while the rest is computed.
        meteor_process()
    separators = sum(bool(_SEPARATOR.search(text)) for texts in (references, predictions) for text in texts.values())
    both = (references, {key: predictions[key] for key in references})
    with ThreadPoolExecutor(2) as pool:
        truth, predicted = pool.map(lambda captions: _tokens(captions, clean, problem is None), both)
    if not any(truth.values()):
        raise ValueError(
            f"clip {next(iter(truth))!r}: caption: no clip has a reference with a word; expected annotated captions"
        )
    corpus, per_clip = _scores(truth, predicted, meteor and problem is None)
    return CaptionScores(
        corpus, per_clip, truth, predicted, "corenlp" if problem is None else "python", notes, separators
    )


def _scores(
    truth: dict[str, str], predicted: dict[str, str], meteor: bool
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Scores of the corpus and of the clips."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    of_corpus: dict[str, Any] = {}
    of_clips: dict[str, Any] = {}
    both = [{key: [text] for key, text in texts.items()} for texts in (truth, predicted)]
    bleu, bleus = Bleu(4).compute_score(*both, verbose=0)
    for n in range(4):
        of_corpus[f"Bleu_{n + 1}"], of_clips[f"Bleu_{n + 1}"] = bleu[n], bleus[n]
    if meteor:
        try:
            scores = meteor_process().score(list(truth.values()), list(predicted.values()))
        except MeteorError as error:
            if error.place is None:
                raise
            key = list(truth)[error.place]
            words = len(predicted[key].split())
            raise ValueError(
                f"clip {key!r}: caption: of {words} words; {error}; shorten it if it repeats itself"
            ) from error
        of_corpus["METEOR"], of_clips["METEOR"] = scores
    of_corpus["ROUGE_L"], of_clips["ROUGE_L"] = Rouge().compute_score(*both)
    of_corpus["CIDEr"], of_clips["CIDEr"] = Cider().compute_score(*both)
    corpus = {name: float(score) for name, score in of_corpus.items()}
    return corpus, {key: {name: float(of_clips[name][n]) for name in of_clips} for n, key in enumerate(truth)}


def _tokens(captions: Mapping[str, str], clean: bool, java: bool) -> dict[str, str]:
    """Words of captions, separated by blanks, by clip."""
    lines = [text.replace("\n", " ") for text in captions.values()]
    if clean:
        lines = [_SEPARATOR.sub(" ", line) for line in lines]
    made = jar_tokens(lines) if java else python_tokens(lines)
    if len(made) < len(lines) or (clean and len(made) > len(lines)):
        raise ValueError(f"captions: the tokenizer made {len(made)} lines of {len(lines)} captions, expected as many")
    # The original pairs clips and lines and never looks at what is left over.
    return {key: " ".join(_words(line)) for key, line in zip(captions, made, strict=False)}


def _words(line: str) -> list[str]:
    return [word for word in line.rstrip().split(" ") if word not in PUNCTUATION]


def _check(references: Mapping[str, str], predictions: Mapping[str, str]) -> None:
    if not references:
        raise ValueError("captions: got no clips, expected at least one")
    if different := [key for key in (*references, *predictions) if key not in references or key not in predictions]:
        lacking = "no reference" if different[0] not in references else "no prediction"
        raise ValueError(f"clip {different[0]!r}: caption: there is {lacking}, expected captions of the same clips")
    for kind, captions in (("reference", references), ("prediction", predictions)):
        for key, text in captions.items():
            if not isinstance(text, str):
                raise ValueError(f"clip {key!r}: caption of the {kind}: got {text!r}, expected a string")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"clip {key!r}: caption of the {kind}: got half of a surrogate pair, {text[error.start]!r}, at character "
                    f"{error.start}; expected Unicode text: take it out"
                ) from None


__all__ = ["CaptionScores", "close_meteor", "score_captions"]
