"""The metrics of ActivityNet-Entities as an `evaluate` module: F1_all and F1_loc, over classes and over sentences.

An entry in the original's spelling is `{"annotations": {video: {"segments": {segment: {...}}}}}`, of the split that is scored, and
`{"results": {video: {segment: {...}}}}`.
"""

from typing import Any

from eval.activitynet_entities import score_activitynet_entities
from eval.activitynet_segments import read_original_activitynet_entities
from eval.lemmas import lemmatizer
from eval.metric_base import ClipMetric, are_ours, as_caption, as_record, merged
from eval.results import BenchmarkResult

_OPTIONS = """\
    mode (`str`, *optional*, defaults to `"generated"`):
        "generated" for sentences of the model, "gt" for the words of the annotated ones.
    lemmas (`str`, *optional*, defaults to `"spacy"`):
        "spacy", or `table:FILE` for a JSON object of words and lemmas.
"""


class ActivitynetEntitiesScore(ClipMetric):
    """Objects that are named, and boxed in the frame where they are annotated (paper, Table 5)."""

    description = "Are objects named and boxed, on ActivityNet-Entities: F1_all and F1_loc, over classes and sentences."
    options = _OPTIONS

    def score(
        self,
        references: list[dict[str, Any]],
        predictions: list[dict[str, Any]],
        *,
        protocols: tuple[str, ...],
        mode: str = "generated",
        lemmas: str = "spacy",
    ) -> BenchmarkResult:
        """See `eval.activitynet_entities`."""
        lemma = lemmatizer(lemmas) if mode == "generated" else None
        if are_ours(references):
            ours = map(as_record, references), map(as_caption, predictions)
            return score_activitynet_entities(*ours, mode=mode, lemma=lemma, protocols=protocols)
        annotations = merged(references)
        everything = {"all": list(annotations.get("annotations", {}))}
        segments = read_original_activitynet_entities(annotations, everything, merged(predictions), "all")
        return score_activitynet_entities(*segments, mode=mode, lemma=lemma, protocols=protocols)
