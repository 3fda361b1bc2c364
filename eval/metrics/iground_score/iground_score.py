"""iGround's metrics as an `evaluate` module: METEOR, CIDEr, BLEU and ROUGE-L of captions, AP50, Recall and mIoU of their boxes."""

from typing import Any

from eval.iground import score_iground
from eval.iground_files import read_prediction, read_reference
from eval.metric_base import ClipMetric, are_ours, as_entry
from eval.results import BenchmarkResult
from eval.text_similarity import text_similarity

_OPTIONS = """\
    similarity (`str`, *optional*, defaults to `"bert"`):
        When phrases mean the same: "bert" as the original, "sentence" for another encoder, "head-word" for the last word.
    text_model (`str`, *optional*):
        Folder or Hub name of the model of the text similarity.
    device (`str`, *optional*):
        Where that model runs.
    captions (`bool`, *optional*, defaults to `True`), coco_stats (`bool`, *optional*), merge_instances (`bool`, *optional*):
        Whether captions are scored, the twelve numbers of COCO are given too, and the truth has one box a phrase and frame.
"""


class IgroundScore(ClipMetric):
    """Grounded captions of iGround (paper, Table 2)."""

    description = (
        "Captions and boxes on iGround: METEOR, CIDEr, AP50, Recall, mIoU, as the original code and corrected."
    )
    options = _OPTIONS

    def score(
        self,
        references: list[dict[str, Any]],
        predictions: list[dict[str, Any]],
        *,
        protocols: tuple[str, ...],
        similarity: str = "bert",
        text_model: str | None = None,
        device: str | None = None,
        **options: Any,
    ) -> BenchmarkResult:
        """See `eval.iground`."""
        # Captions of ours name their frames, so those of the annotation are needed.
        ours = any(are_ours([item]) for item in predictions)
        return score_iground(
            [read_reference(as_entry(c, n), f"references[{n}]", with_source=ours) for n, c in enumerate(references)],
            [read_prediction(as_entry(c, n), f"predictions[{n}]") for n, c in enumerate(predictions)],
            protocols=protocols,
            similarity=text_similarity(similarity, text_model, device),
            **options,
        )
