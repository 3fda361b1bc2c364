"""The parts of a picture: colours, text that fits, state between sampled frames, boxes with labels, the strip."""

import itertools

import numpy as np
import pytest

from modeling_grove.drawing_grove import (
    DARK,
    LIGHT,
    PALETTE,
    Mark,
    Presence,
    Strip,
    _free_place,
    _printable,
    _shorten,
    _wrap,
    draw_marks,
    draw_tag,
)
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack

WIDTH, HEIGHT = 320, 180
TEXT = "A cup stands by a lamp."
BOX = np.array([100, 60, 200, 140])


def caption_of(text: str = TEXT, phrases: tuple[str, ...] = ("A cup", "a lamp"), presence=(True,) * 10):
    """Ten sampled frames, every fifth of 50; the box of each phrase moves 10 pixels a sampled frame."""
    boxes = BOX + np.arange(10)[:, None] * [10, 0, 10, 0]
    tracks = [
        PhraseTrack(
            phrase, (start := text.index(phrase), start + len(phrase)), boxes, presence, np.multiply(presence, 0.9)
        )
        for phrase in phrases
    ]
    indices = np.arange(0, 50, 5)
    return GroundedCaption(text, tracks, "clip", 0, "clip.mp4", 25.0, WIDTH, HEIGHT, 0, 49, indices, indices / 25)


def test_palette():
    distances = [np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(PALETTE, 2)]
    assert len(PALETTE) == 12
    assert min(distances) > 60


def test_text_that_the_font_lacks():
    assert _printable("jalape\u00f1o \u2014 \u67f4\u72ac\n\u200b!") == "jalapeno - ?? !"


def test_text_is_cut_to_its_width():
    assert _shorten("cup", 14, 200.0) == "cup"
    cut = _shorten("a very long phrase that nothing has room for", 14, 100.0)
    assert cut.endswith("...") and cut.startswith("a very")
    assert draw_tag(cut, 14, PALETTE[0]).shape[1] <= 100 + 2 * 3
    assert _shorten("cup", 14, 0.0) == "..."


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("", ()),
        ("Nothing is tagged.", ()),
        ("word " * 400 + "a dog", ("a dog",)),
        ("a " + "x" * 500 + " dog", ("dog",)),
        ("a " + "y" * 300, ("a " + "y" * 300,)),
        (
            "\u67f4\u72ac jumps \U0001f436 over the jalape\u00f1o \u2014 twice\nor more",
            ("\u67f4\u72ac", "the jalape\u00f1o"),
        ),
    ],
    ids=["empty", "no-phrase", "long", "long-word", "long-phrase", "unicode"],
)
def test_wrapped_words_fit(text, phrases):
    words = _wrap(caption_of(text, phrases), 14, 300)
    for word in words:
        assert word.x + word.width <= 301
        assert word.text.isascii()
    for before, after in itertools.pairwise(words):
        assert after.line == before.line + 1 or (after.line == before.line and after.x >= before.x + before.width)
    assert "".join(word.text for word in words).replace(" ", "") == "".join(_printable(text).split())


def test_state_between_sampled_frames():
    presence = Presence(caption_of(phrases=("A cup",), presence=~np.isin(np.arange(10), (4, 5, 6))))
    assert presence.nearest(np.array([0, 2, 3, 47, 49])).tolist() == [0, 0, 1, 9, 9]
    (mark,) = presence.marks(12)
    np.testing.assert_allclose(mark.box, BOX + np.array([24, 0, 24, 0]), rtol=1e-6)
    assert mark.objectness == pytest.approx(0.9)
    assert presence.marks(48)[0].box[0] == 190
    assert presence.marks(19) == []


def test_labels_do_not_cover_each_other():
    placed = []
    for _ in range(20):
        place = _free_place((10, 60), (50, 40, 120, 90), (200, 320), placed, [])
        assert 0 <= place[0] < place[2] <= 320
        assert 0 <= place[1] < place[3] <= 200
        for other in placed:
            assert place[2] <= other[0] or other[2] <= place[0] or place[3] <= other[1] or other[3] <= place[1]
        placed.append(place)


def test_marks_in_a_picture_of_another_size():
    picture = np.full((2 * HEIGHT, 2 * WIDTH, 3), 60, np.uint8)
    draw_marks(picture, [Mark(0, BOX, 0.9), Mark(1, np.array([-50, -50, 40, 20]), 0.9)], caption_of(), 14, False)
    first, second = ((picture == color).all(axis=-1) for color in PALETTE[:2])
    assert first[140:260, 200].all() and first[140:260, 399].all() and first[279, 220:380].all()
    assert second[39, 5:75].all() and not second[60:].any()
    assert (picture[300:] == 60).all()


@pytest.mark.parametrize("box", [[200, 140, 100, 60], [400, 10, 500, 90], [10, 10, 10, 90]])
def test_boxes_without_pixels_are_not_drawn(box):
    picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    draw_marks(picture, [Mark(0, np.array(box), 0.9)], caption_of(), 14, True)
    assert (picture == 60).all()


def test_labels_keep_off_what_is_taken():
    picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    above = (90, 30, 300, 60)  # where the label would be
    draw_marks(picture, [Mark(0, BOX, 0.9)], caption_of(), 14, True, above)
    assert (picture[30:57, 90:300] == 60).all()
    assert (picture == PALETTE[0]).all(axis=-1).sum() > 1000


def test_strip_is_lit_by_phrase_and_has_a_cursor():
    caption = caption_of()
    strip = Strip(caption, Presence(caption), WIDTH, 14, 90, DARK)
    canvas = np.zeros((strip.height, WIDTH, 3), np.uint8)
    for lit in itertools.product((False, True), repeat=2):
        strip.draw(canvas, lit, [0], DARK.text)
        colored = [(canvas[: strip.text_height] == color).all(axis=-1).sum() > 100 for color in PALETTE[:2]]
        assert colored == list(lit)
    cursors = []
    for frame in (0, 20, 49):
        strip.draw(canvas, (True, True), [frame], DARK.text)
        lanes = canvas[strip.text_height : strip.lanes_bottom]
        cursors.append(np.flatnonzero((lanes == DARK.text).all(axis=(0, 2)))[0])
    assert cursors[0] == strip.left and cursors[2] == strip.right
    assert cursors[1] == pytest.approx(strip.left + (strip.right - strip.left) * 20 / 49, abs=1)


def test_long_caption_gets_smaller_then_cut():
    caption = caption_of("word " * 200 + "a dog", ("a dog",))
    roomy, narrow = (Strip(caption, Presence(caption), WIDTH, 20, room, LIGHT) for room in (10**6, 60))
    assert roomy.size == 20 and roomy.words[-1].text == "a dog"
    assert narrow.size < 20 and narrow.words[-1].text == " ..."
    assert narrow.words[-1].line == 2
