"""The numbers that the paper reports, to stand beside ours: "Large-scale Pre-training for Grounded Video Caption Generation",
arXiv 2503.10781v3 (ICCV 2025), Tables 2 to 9 and Figures 5 and 6.

All values are the paper's, in its units (percent; CIDEr times 100). Version 1 of the paper has other numbers in Tables 2, 3 and
5. What the paper only draws is not here as a number: of its figures, only the ranges that their axes cover are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SOURCE = "arXiv 2503.10781v3"
CAPTION_COLUMNS = ("METEOR", "CIDEr")
IGROUND_COLUMNS = (*CAPTION_COLUMNS, "AP50", "Recall")


@dataclass(frozen=True)
class PaperRow:
    """
    A row of one of the paper's tables.

    Attributes:
        key (`str`): short name, by which a command line says that a result belongs to the row.
        title (`str`): what the row is, in words.
        values (`Mapping[str, float]`): by column.
        group (`str`): the part of the table that it is in, such as the frames that are compared.
    """

    key: str
    title: str
    values: Mapping[str, float]
    group: str = ""


@dataclass(frozen=True)
class PaperTable:
    """
    One of the paper's tables.

    Attributes:
        name (`str`): "Table 2".
        title (`str`): what it shows.
        benchmark (`str`): which of our benchmarks its numbers are of.
        data (`str`): the data and split that they were measured on.
        columns (`tuple[str, ...]`): in the paper's order, under the names that our results have in `headline`.
        rows (`tuple[PaperRow, ...]`): in the paper's order.
        source (`str`): where the numbers are from.
    """

    name: str
    title: str
    benchmark: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    source: str = SOURCE

    @property
    def keys(self) -> list[str]:
        """The distinct keys of its rows, in their order."""
        return list(dict.fromkeys(row.key for row in self.rows))

    @property
    def groups(self) -> list[str]:
        """The distinct groups of its rows, in their order; `[""]` for a table without groups."""
        return list(dict.fromkeys(row.group for row in self.rows))

    def find(self, key: str, group: str = "") -> PaperRow | None:
        """The row of a key, if the table has it in that group."""
        return next((row for row in self.rows if row.key == key and row.group == group), None)


def _rows(columns: tuple[str, ...], lines: str, group: str = "") -> Iterator[PaperRow]:
    """Rows of lines `key | title | value value ...`."""
    for line in lines.strip().splitlines():
        key, title, numbers = (part.strip() for part in line.split("|"))
        values = dict(zip(columns, map(float, numbers.split()), strict=True))
        yield PaperRow(key, title, values, group)


def _table(
    name: str, title: str, benchmark: str, data: str, columns: tuple[str, ...], groups: Mapping[str, str]
) -> PaperTable:
    rows = tuple(row for group, lines in groups.items() for row in _rows(columns, lines, group))
    return PaperTable(name, title, benchmark, data, columns, rows)


CENTER, ALL = "center frame", "all frames"

# Caption scores are the same for both groups, as a clip has one caption. "Automatic annotation" scores the pseudo-labels that
# HowToGround1M is made of as if they were predictions; GLaMM captions single frames.
IGROUND = _table(
    "Table 2",
    "Grounded video captioning",
    "iground",
    "iGround test",
    IGROUND_COLUMNS,
    {
        CENTER: """
            glamm     | GLaMM, single frame             | 11.9 29.9 20.8 19.3
            pt        | GROVE, pre-trained              | 14.3 50.6 27.0 22.5
            pt+ft     | GROVE, pre-trained, fine-tuned  | 21.4 83.5 31.7 26.2
        """,
        ALL: """
            automatic | automatic annotation            | 13.8 40.0 27.1 20.4
            pt        | GROVE, pre-trained              | 14.3 50.6 33.6 24.3
            ft        | GROVE, fine-tuned only          | 21.0 77.7 15.8 18.1
            pt+ft     | GROVE, pre-trained, fine-tuned  | 21.4 83.5 40.0 28.7
        """,
    },
)

VIDSTG_DECLARATIVE = _table(
    "Table 3",
    "Spatial grounding of declarative sentences, true temporal span given",
    "vidstg",
    "VidSTG test, declarative",
    ("msIoU",),
    {
        "": """
            stvgbert  | STVGBert                        | 47.3
            tubedetr  | TubeDETR                        | 59.0
            stcat     | STCAT                           | 61.7
            densevoc  | DenseVOC                        | 61.9
            ft        | GROVE, fine-tuned only          | 61.3
            pt+ft     | GROVE, pre-trained, fine-tuned  | 63.7
        """,
    },
)

VIDSTG_INTERROGATIVE = _table(
    "Table 4",
    "Spatial grounding of interrogative sentences, true temporal span given",
    "vidstg",
    "VidSTG test, interrogative",
    ("msIoU",),
    {
        "not fine-tuned": """
            pg-video-llava | PG-Video-LLaVA-13B         | 35.1
            glamm+sam2     | GLaMM with SAM2            | 38.6
            pt             | GROVE, pre-trained         | 43.0
        """,
        "fine-tuned": """
            videoglamm | VideoGLaMM                     | 39.7
            pt+ft      | GROVE, pre-trained, fine-tuned | 55.5
        """,
    },
)

ACTIVITYNET_ENTITIES = _table(
    "Table 5",
    "Grounded captioning of video segments",
    "activitynet_entities",
    "ActivityNet-Entities validation",
    ("F1_all", "F1_all_per_sent", "F1_loc", "F1_loc_per_sent"),
    {
        "": """
            gvd       | GVD                             | 7.10 17.30 23.80 59.20
            ft        | GROVE, fine-tuned only          | 9.51 21.15 30.96 68.79
            pt+ft     | GROVE, pre-trained, fine-tuned  | 13.39 24.08 45.04 77.29
        """,
    },
)

# There is no row with neither.
ADAPTERS = _table(
    "Table 6",
    "Spatio-temporal adapters, and training the box decoder",
    "iground",
    "iGround val",
    IGROUND_COLUMNS,
    {
        "": """
            both      | adapters and unfrozen           | 19.7 92.6 42.0 26.9
            unfreeze  | unfrozen, no adapters           | 19.7 88.9 39.2 26.4
            adapters  | adapters, frozen                | 19.2 82.2 36.8 25.9
        """,
    },
)

# The pseudo-labels themselves are scored against the human annotation. "Average" is that of the four columns.
ANNOTATION = _table(
    "Table 7",
    "Ways of annotating automatically",
    "iground",
    "iGround val",
    (*IGROUND_COLUMNS, "Average"),
    {
        "": """
            proposed      | proposed                                      | 12.3 31.7 26.9 19.3 22.5
            frame         | frame captions by GIT and Llama-3, OWLv2      | 12.4 36.8 20.1 14.5 20.9
            video         | video captions by VideoLLaMA3                 | 16.8 23.1 14.6 14.2 17.2
            full-captions | full frame captions instead of triplets       | 11.9 28.7 27.8 17.6 21.5
            tracker       | CoTracker3 instead of tracking by language    | 12.3 31.7 23.2 16.0 20.8
        """,
    },
)

POINTING = _table(
    "Table 8",
    "Pointing accuracy, not fine-tuned",
    "youcook_interactions, grounding_youtube",
    "YouCook-Interactions and GroundingYouTube",
    ("YouCook-Interactions", "GroundingYouTube"),
    {
        "": """
            www-s3d   | What, When and Where, S3D       | 53.98 60.62
            www-clip  | What, When and Where, CLIP      | 58.35 56.98
            pt        | GROVE, pre-trained              | 68.67 72.14
        """,
    },
)

HARD = _table(
    "Table 9",
    "Clips with look-alike objects (about a tenth; which is not published)",
    "iground",
    "iGround val",
    IGROUND_COLUMNS,
    {
        "hard": """
            automatic | automatic annotation            | 8.1 7.3 22.3 14.7
            pt+ft     | GROVE, pre-trained, fine-tuned  | 14.4 41.3 36.0 18.9
        """,
        "all": """
            automatic | automatic annotation            | 12.3 31.7 26.9 19.3
            pt+ft     | GROVE, pre-trained, fine-tuned  | 19.7 92.6 42.0 26.9
        """,
    },
)

TABLES = {
    table.name: table
    for table in (
        IGROUND,
        VIDSTG_DECLARATIVE,
        VIDSTG_INTERROGATIVE,
        ACTIVITYNET_ENTITIES,
        ADAPTERS,
        ANNOTATION,
        POINTING,
        HARD,
    )
}


@dataclass(frozen=True)
class PaperFigure:
    """
    One of the paper's plots, whose points are not published.

    Attributes:
        name (`str`): "Figure 5".
        title (`str`): what it shows.
        data (`str`): the data and split that it was measured on.
        axes (`Mapping[str, tuple[float, float]]`): by metric, the range that the axis of the plot covers, in percent.
        known ([`PaperRow`]): the one point of the plot that a table has too.
        reading (`str`): what the plot shows, in words.
        source (`str`): where it is from.
    """

    name: str
    title: str
    data: str
    axes: Mapping[str, tuple[float, float]]
    known: PaperRow
    reading: str
    source: str = SOURCE


# That the full model of Table 6 is the last point of Figure 5 and the threshold 0.5 of Figure 6 is not said, but follows: same
# data, same training, and 0.5 is the threshold of the released code.
SCALE = PaperFigure(
    "Figure 5",
    "Size of the pre-training data",
    "iGround val",
    {"CIDEr": (32, 94), "AP50": (25, 43), "Recall": (20, 28)},
    PaperRow("pt+ft", "1M clips, fine-tuned", ADAPTERS.rows[0].values),
    "With 1k, 10k, 100k and 1M clips, all three rise steadily, before and after fine-tuning.",
)
SCALE_CLIPS = 1_000_000

THRESHOLD = PaperFigure(
    "Figure 6",
    "Objectness threshold",
    "iGround val",
    {"AP50": (39, 42), "Recall": (26, 29)},
    PaperRow("pt+ft", "threshold 0.5", ADAPTERS.rows[0].values),
    "From threshold 0.0 to 0.5, AP50 rises and recall falls.",
)
DEFAULT_THRESHOLD = 0.5

FIGURES = {figure.name: figure for figure in (SCALE, THRESHOLD)}

__all__ = [
    "ACTIVITYNET_ENTITIES",
    "ADAPTERS",
    "ALL",
    "ANNOTATION",
    "CAPTION_COLUMNS",
    "CENTER",
    "DEFAULT_THRESHOLD",
    "FIGURES",
    "HARD",
    "IGROUND",
    "IGROUND_COLUMNS",
    "POINTING",
    "SCALE",
    "SCALE_CLIPS",
    "TABLES",
    "THRESHOLD",
    "VIDSTG_DECLARATIVE",
    "VIDSTG_INTERROGATIVE",
    "PaperFigure",
    "PaperRow",
    "PaperTable",
]
