"""Nouns: what two phrases can both mean."""

import pytest

from pipeline_annotate.nouns import can_be_same, read_noun, similarity, singular


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a red cup", "the cup", True),
        ("a red cup", "a blue cup", False),
        ("a red mug", "a red cup", True),
        ("a red cup", "a red bowl", False),
        ("a man in a blue shirt", "a guy", True),
        ("a man in a blue shirt", "a man in a red shirt", True),  # the colour is the shirt's: similarity decides
        ("a man", "a woman", False),
        ("a person", "a woman", True),
        ("a hand", "a woman", True),
        ("a hand", "a red cup", False),
        ("two balls", "a ball", True),
        ("three boxes", "cartons", True),
        ("a cutting board", "a chopping board", True),
        ("a toy car", "a car", True),
        ("a man", "a man's hat", False),
    ],
)
def test_what_can_be_the_same(one, other, same):
    assert can_be_same(read_noun(one), read_noun(other)) is same
    assert can_be_same(read_noun(other), read_noun(one)) is same


def test_what_more_is_shared_is_nearer():
    man, blue, red = (read_noun(text) for text in ("a man in blue", "a man in a blue shirt", "a man in a red shirt"))
    assert similarity(man, blue) > similarity(man, red) and similarity(blue, blue) == 1


@pytest.mark.parametrize(
    ("plural", "one"),
    [("boxes", "box"), ("men", "man"), ("knives", "knife"), ("berries", "berry"), ("glass", "glass"), ("dishes", "dish"),
     ("bus", "bus"), ("cups", "cup"), ("tennis", "tennis")],
)  # fmt: skip
def test_singular(plural, one):
    assert singular(plural) == one


def test_numbers_and_colours():
    noun = read_noun("Two big red toy cars on a blue table")
    assert (noun.head, noun.is_plural, noun.colors, noun.is_person) == ("car", True, {"red"}, False)
