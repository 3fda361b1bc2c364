"""`datasets` features of the records, the same in every builder, card and shard.

They are always written out: inferred from the first samples, `1` in the first record makes `0.5` in a later one `0`, and a
column of empty lists has no type at all.
"""

from datasets import Features, List, Value, Video

RECORD_FEATURES = Features(
    {
        "video_id": Value("string"),
        "clip_id": Value("int64"),
        "video_fname": Value("string"),
        "fps": Value("float64"),
        "width": Value("int32"),
        "height": Value("int32"),
        "clip_start_frame": Value("int64"),
        "clip_end_frame": Value("int64"),
        "caption": Value("string"),
        "tagged_caption": Value("string"),
        "phrases": List(Value("string")),
        "bboxes": List(List(List(Value("float32")))),
        "labels": List(List(Value("string"))),
        "frame_indices": List(Value("int64")),
        "timestamps": List(Value("float64")),
        "track_phrases": List(Value("int32")),
        "track_ids": List(List(Value("int32"))),
        "scores": List(List(Value("float32"))),
        "metadata": Value("string"),
    }
)


def sample_features(with_video: bool) -> Features:
    """
    The columns of a data set of shards: the record as `json`, the clip itself as `mp4` where the shards have it, and the
    `__key__` and `__url__` that the WebDataset loader adds.
    """
    columns = {"json": RECORD_FEATURES, "__key__": Value("string"), "__url__": Value("string")}
    if with_video:
        columns = {"json": RECORD_FEATURES, "mp4": Video(), "__key__": Value("string"), "__url__": Value("string")}
    return Features(columns)
