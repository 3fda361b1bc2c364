"""Small files in the forms that others release: what the importers read, made up here."""

import json
from pathlib import Path
from typing import Any

from tests.records import make_caption


def write(path: Path, value: Any) -> Path:
    """Writes JSON, or JSON Lines if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = value if path.suffix == ".jsonl" else [value]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def released(count: int = 3, **options: Any) -> list[dict[str, Any]]:
    """Annotations of HowToGround1M or iGround; with `instances=2` raw ones."""
    records = [make_caption(f"video{i}", i, seed=i, **options).to_dict() for i in range(count)]
    for record in records:
        for name in ("tracks", "frame_indices", "timestamps"):
            del record[name]
    return records


def vidstg(count: int = 3) -> list[dict[str, Any]]:
    """Entries of VidSTG's annotations, two a video; the clip is frames 10 to 69 and the tube is 21 to 57."""
    return [
        {
            "vid": f"{1000 + i // 2}",
            "fps": 25,
            "frame_count": 90,
            "used_segment": {"begin_fid": 10, "end_fid": 69},
            "width": 640,
            "height": 360,
            "subject/objects": [{"tid": 0, "category": "adult"}, {"tid": 3, "category": "ball/sports_ball"}],
            "used_relation": {"subject_tid": 0, "object_tid": 3, "predicate": "kick", "begin_fid": 21, "end_fid": 58},
            "temporal_gt": {"begin_fid": 21, "end_fid": 58},
            "captions": [{"description": f"an adult kicks ball {i}.", "type": "person", "target_id": 0}],
            "questions": [
                {"description": "who kicks the ball?", "type": "person", "target_id": 0},
                {"description": "what does the adult kick?", "type": "object", "target_id": 3},
            ],
        }
        for i in range(count)
    ]


def vidor(folder: Path, video_ids: list[str]) -> Path:
    """VidOR's annotations of these videos, in groups: object 0 in all 90 frames, object 3 in every second one."""
    for n, video_id in enumerate(video_ids):
        frames = [
            [_vidor_box(0, 5 + frame, 10)] + ([_vidor_box(3, 7, 20 + frame)] if frame % 2 else [])
            for frame in range(90)
        ]
        objects = [{"tid": 0, "category": "adult"}, {"tid": 3, "category": "ball/sports_ball"}]
        video = {"video_id": video_id, "frame_count": 90, "fps": 25, "width": 640, "height": 360}
        write(folder / f"{n:04}" / f"{video_id}.json", {**video, "subject/objects": objects, "trajectories": frames})
    return folder


def _vidor_box(tid: int, x: int, y: int) -> dict[str, Any]:
    box = {"xmin": x, "ymin": y, "xmax": x + 30, "ymax": y + 40}
    return {"tid": tid, "bbox": box, "generated": 0, "tracker": "none"}


def prepared_vidstg(count: int = 3) -> dict[str, Any]:
    """The prepared form of VidSTG: tubes of frames 20 to 59."""
    videos = [
        {
            "video_id": f"v{i}_{i}",
            "original_video_id": f"v{i}",
            "video_path": f"v{i}.mp4",
            "fps": 24.0,
            "tube_start_frame": 20,
            "tube_end_frame": 60,
            "target_id": 1,
            "qtype": ("declarative", "interrogative")[i % 2],
            "width": 640,
            "height": 360,
            "caption": f"child {i} holds the toy",
        }
        for i in range(count)
    ]
    boxes = {str(frame): {"bbox": [10.5 + frame, 20.0, 30.25, 40.5]} for frame in range(20, 60)}
    return {"videos": videos, "trajectories": {f"v{i}": {"1": boxes} for i in range(count)}}


def activitynet_entities(count: int = 3) -> dict[str, Any]:
    """A reference file with one segment a video, of seconds 1 to 5: two boxes of "dogs", one of "cat" and "dogs"."""
    segment = {
        "process_bnd_box": [[72, 36, 144, 72], [360, 180, 720, 360], [0, 0, 36, 36]],
        "frame_ind": [4, 4, 9],
        "process_idx": [[1], [1], [1, 4]],
        "process_clss": [["dog"], ["dog"], ["dog", "cat"]],
        "tokens": ["Two", "dogs", "and", "a", "cat", "play", "."],
        "timestamps": [1.0, 5.0],
    }
    video = {"duration": 8.0, "fps": 25.0, "num_frames": 200, "width": 720, "height": 360, "segments": {"0": segment}}
    return {
        "vocab": ["cat", "dog"],
        "annotations": {f"v_{i}": {**video, "segments": {str(i): segment}} for i in range(count)},
    }


def pointing(count: int = 3) -> list[dict[str, Any]]:
    """Segments of YouCook-Interactions: seconds 0 and 3 have a box."""
    return [
        {
            "video_id": f"yc{i}",
            "segment_bboxes": [[7.5, 7.0, 76.0, 41.1], None, [], [97.7, 17.9, 119.7, 76.6 + i]],
            "caption": "put the onion in the pan",
            "fps": 30.0,
            "width": 640,
            "height": 360,
            "segment_youcook_idx": i,
        }
        for i in range(count)
    ]
