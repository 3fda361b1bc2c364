"""Records in the formats of other tools: COCO, MOTChallenge, CVAT, Label Studio, and `supervision`.

What all of them share:

- Annotated are the sampled frames of a clip, about five a second. COCO, MOT and `supervision` describe pictures, so they have
  exactly these, and beside each its number in the source video. CVAT and Label Studio describe objects through all
  frames of a video, so there the sampled frames are keyframes. Between two of them that have the object such tools
  interpolate linearly, as we do for drawing. Where the object is missing in the next sampled frame, its last box is
  held up to the frame before that one.
- A box is `x1, y1, x2, y2` in pixels, as edges: the left edge of the first pixel is 0, the right edge of the last one is
  the width. Its width is `x2 - x1`, without the `+ 1` of formats that count pixels.
- Every track of a record, an instance of a phrase, is an object of its own with an id of its own. A raw record gives
  several objects for a phrase where its processed form has one.
- The category of an object is its phrase, the head word of the phrase, or the same for all (see `categories`).
- Files and folders appear when they are complete. Records are read one by one and not kept.
"""

from .categories import CATEGORY_KINDS, Categories, head_word
from .clips_to_export import ExportCounts
from .coco import write_coco
from .cvat import write_cvat
from .detections import frame_detections, write_detections
from .label_studio import write_label_studio
from .mot import write_mot

__all__ = [
    "CATEGORY_KINDS",
    "Categories",
    "ExportCounts",
    "frame_detections",
    "head_word",
    "write_coco",
    "write_cvat",
    "write_detections",
    "write_label_studio",
    "write_mot",
]
