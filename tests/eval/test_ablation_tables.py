"""Tables: what is repeated is left out, columns line up, and what is missing is a dash."""

from eval.ablation_tables import OURS, PAPER, Line, comparison_table, document, markdown_table

LINES = [
    Line("full", PAPER, {"AP50": 42.0, "CIDEr": 92.64}),
    Line("full", OURS["official"], {"AP50": 40.0, "CIDEr": None}, {"AP50": (38.04, 101.96)}),
    Line("other", OURS["official"], {"AP50": 5.0}),
]


def test_lines_of_one_title_name_it_once():
    rows = comparison_table(LINES, ("AP50", "CIDEr"), heading="model").splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0] == ["model", "numbers", "AP50", "CIDEr"]
    assert cells[2:] == [
        ["full", "paper", "42.0", "92.6"],
        ["", "ours, official", "40.0 [38.0, 102.0]", "-"],
        ["other", "ours, official", "5.0", "-"],
    ]


def test_numbers_line_up_beside_intervals():
    rows = comparison_table(LINES, ("AP50", "CIDEr")).splitlines()
    assert len({len(row) for row in rows}) == 1
    assert len({row.index(".") for row in rows[2:]}) == 1


def test_groups_are_named_once_and_only_where_there_are_any():
    lines = [Line("a", PAPER, {"x": 1.0}, group="center"), Line("a", PAPER, {"x": 2.0}, group="all")]
    rows = comparison_table([*lines, Line("b", PAPER, {"x": 3.0}, group="all")], ("x",)).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["center", "all", ""]
    # The same title in another group is said again.
    assert [row.split("|")[2].strip() for row in rows] == ["a", "a", "b"]


def test_a_bar_in_a_name_does_not_break_the_table():
    rows = markdown_table([["name", "n"], ["a|b", "1"]]).splitlines()
    assert rows[2] == "| a\\|b |   1 |"
    assert rows[1] == "|------|----:|"


def test_a_page_has_title_table_notes_and_pictures():
    page = document("Title", "| a |", ["one", "two"], ["p.png"])
    assert page == "# Title\n\n| a |\n\n- one\n- two\n\n![Title](p.png)\n"
