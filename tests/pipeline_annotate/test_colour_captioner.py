"""Captions without a model: regions of one colour."""

import numpy as np
import pytest

from pipeline_annotate.captioners import Frame
from pipeline_annotate.colour_captioner import _NAMES, ColourCaptioner, name_colours


def picture(*regions):
    """A grey picture with coloured rectangles `(colour, box)`."""
    pixels = np.full((120, 200, 3), 128, np.uint8)
    for colour, (left, top, right, bottom) in regions:
        pixels[top:bottom, left:right] = colour
    return Frame("video_0", 0, 0.0, pixels)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((220, 30, 30), "red"), ((240, 140, 20), "orange"), ((230, 220, 30), "yellow"), ((30, 170, 50), "green"),
     ((30, 60, 220), "blue"), ((150, 40, 200), "purple"), ((250, 20, 60), "red"), ((10, 10, 10), "black"),
     ((128, 128, 128), "gray"), ((250, 250, 250), "white")],
)  # fmt: skip
def test_names_of_colours(rgb, name):
    assert _NAMES[name_colours(np.full((2, 2, 3), rgb, np.uint8), 0.3)[0, 0]] == name


def test_regions_have_boxes_and_a_sentence():
    red, blue = (40, 10, 80, 40), (50, 70, 110, 110)
    captions = ColourCaptioner().caption([picture(((220, 30, 30), red), ((30, 60, 220), blue)), picture()])
    assert captions[0].tagged_caption == "<p>a blue area</p> under <p>a red area</p>"
    for phrase, box in zip(captions[0].phrases, (blue, red), strict=True):
        np.testing.assert_allclose(phrase.boxes, [box], atol=3)
        assert 0.9 <= phrase.scores[0] <= 1
    assert captions[1].caption == "" and captions[1].phrases == ()  # all of it is grey: the background


def test_small_regions_are_not_named():
    assert ColourCaptioner().caption([picture(((220, 30, 30), (10, 10, 14, 14)))])[0].phrases == ()
