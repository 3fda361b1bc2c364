"""Plots: pictures of the right size with everything in them; how they look is for eyes."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.plots import (
    BLUE,
    CYCLE,
    ORANGE,
    Curve,
    Level,
    Panel,
    Point,
    RowNames,
    RowPanel,
    plot_curves,
    plot_rows,
    short_count,
)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def has_color(picture: np.ndarray, color: str) -> bool:
    wanted = [int(color[n : n + 2], 16) for n in (1, 3, 5)]
    return bool((np.abs(picture - wanted).max(axis=-1) <= 2).sum() > 20)


def margins_are_white(picture: np.ndarray) -> bool:
    border = [picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]]
    return all((part == 255).all() for part in border)


CURVES = [
    Curve("ours", [0.0, 0.5, 0.9], [40.0, 42.0, None], [38.0, 40.0, None], [42.0, 44.0, None]),
    Curve("paper", [0.5], [41.0], color=ORANGE, marker="D", dashes="", hollow=True),
]


def test_curves_with_gaps_bands_and_levels_are_drawn(tmp_path):
    panels = [Panel("AP50", CURVES, [Level("without", 39.0)], mark_x=0.5, mark_text="default"), Panel("Recall", CURVES)]
    picture = pixels(plot_curves(panels, tmp_path / "p.png", x_label="threshold", y_label="percent"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert has_color(picture, BLUE) and has_color(picture, ORANGE)
    assert margins_are_white(picture)
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_the_same_numbers_make_the_same_bytes(tmp_path):
    panels = [Panel("AP50", CURVES)]
    files = [plot_curves(panels, tmp_path / name, x_label="x", y_label="y").read_bytes() for name in ("a.png", "b.png")]
    assert files[0] == files[1]
    with Image.open(BytesIO(files[0])) as picture:
        assert picture.info.get("Software") is None


def test_a_legend_that_is_too_wide_takes_several_lines(tmp_path):
    names = [f"a rather long name of curve number {n}" for n in range(len(CYCLE))]
    curves = [
        Curve(name, [1e3, 1e6], [n, n + 1.0], color=color)
        for n, (name, color) in enumerate(zip(names, CYCLE, strict=True))
    ]
    path = plot_curves([Panel("CIDEr", curves)], tmp_path / "p.png", x_label="clips", y_label="score", log_x=True)
    picture = pixels(path)
    assert margins_are_white(picture)
    # One under the other: their colours are all at the left, above the panel.
    assert all(has_color(picture[:250, :60], color) for color in CYCLE)


def test_one_point_and_nothing_but_gaps_can_be_drawn(tmp_path):
    curves = [Curve("one", [1000], [3.0], [2.0], [4.0]), Curve("none", [1000, 2000], [None, None])]
    assert has_color(
        pixels(plot_curves([Panel("x", curves)], tmp_path / "p.png", x_label="", y_label="", log_x=True)), BLUE
    )


def test_what_is_missing_is_said_and_covers_nothing(tmp_path):
    made = [
        pixels(plot_curves([Panel("x", CURVES, missing=missing)], tmp_path / "p.png", x_label="", y_label=""))
        for missing in ((), ("fine-tuned only",))
    ]
    ends = [
        np.flatnonzero((np.abs(picture - [0xD5, 0x5E, 0x00]).max(axis=-1) <= 2).any(axis=1))[-1] for picture in made
    ]
    assert ends[1] < ends[0] - 20 and not np.array_equal(*made)  # the curves moved up, off the words


def test_rows_with_and_without_points_are_drawn(tmp_path):
    points = [[Point("paper", 42.0), Point("ours", 40.0, 38.0, 42.0, ORANGE, "s")], [], [Point("paper", 1.0)]]
    names = RowNames(["full", "none", "other"], ["center", "center", "all"])
    grouped = pixels(plot_rows([RowPanel("AP50", points)] * 4, names, tmp_path / "a.png", x_label="score"))
    plain = pixels(
        plot_rows([RowPanel("AP50", points)] * 4, RowNames(names.titles), tmp_path / "b.png", x_label="score")
    )
    assert has_color(grouped, BLUE) and has_color(grouped, ORANGE)
    assert grouped.shape[0] > plain.shape[0] and margins_are_white(grouped)


@pytest.mark.parametrize(
    ("count", "text"), [(20, "20"), (1000, "1k"), (2500, "2.5k"), (100_000, "100k"), (1_000_000, "1M")]
)
def test_counts_are_written_as_people_do(count, text):
    assert short_count(count) == text
