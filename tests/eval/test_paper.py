"""The paper's numbers: what can be checked without the paper."""

import pytest

from eval.ablations.paper_comparison import AVERAGE
from eval.paper import ADAPTERS, ANNOTATION, CENTER, FIGURES, HARD, IGROUND, TABLES


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_row_has_every_column_and_its_own_key(table):
    for row in table.rows:
        assert tuple(row.values) == table.columns
        assert all(0 < value <= 100 for value in row.values.values())
        assert row.key == row.key.lower() and "=" not in row.key
    places = [(row.group, row.key) for row in table.rows]
    assert len(set(places)) == len(places)


def test_tables_two_to_nine_are_all_there():
    assert list(TABLES) == [f"Table {n}" for n in range(2, 10)]


def test_average_of_table_7_is_that_of_its_columns():
    for row in ANNOTATION.rows:
        rest = [value for column, value in row.values.items() if column != AVERAGE]
        assert sum(rest) / 4 == pytest.approx(row.values[AVERAGE], abs=0.051)


def test_what_two_tables_both_have_is_the_same():
    full, proposed = ADAPTERS.find("both"), ANNOTATION.find("proposed")
    assert full is not None and proposed is not None
    trained, automatic = HARD.find("pt+ft", "all"), HARD.find("automatic", "all")
    assert trained is not None and automatic is not None
    assert dict(trained.values) == dict(full.values)
    assert dict(automatic.values) == {name: proposed.values[name] for name in HARD.columns}
    # A clip has one caption, whatever frames are compared.
    for row in IGROUND.rows:
        if row.group == CENTER and (other := IGROUND.find(row.key, "all frames")):
            assert [row.values[name] for name in ("METEOR", "CIDEr")] == [
                other.values[name] for name in ("METEOR", "CIDEr")
            ]


@pytest.mark.parametrize("figure", FIGURES.values(), ids=list(FIGURES))
def test_the_known_point_of_a_figure_is_on_its_axes(figure):
    for metric, (low, high) in figure.axes.items():
        assert low <= figure.known.values[metric] <= high


def test_a_row_is_found_by_key_and_group():
    row = IGROUND.find("pt+ft", CENTER)
    assert row is not None and row.values["AP50"] == 31.7
    assert IGROUND.find("automatic", CENTER) is None
    assert IGROUND.keys == ["glamm", "pt", "pt+ft", "automatic", "ft"]
