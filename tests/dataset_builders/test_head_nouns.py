"""Where the head of a noun phrase is; `test_exporters` and `test_noise` have what is made of it."""

import pytest

from dataset_builders.head_nouns import head_noun, head_part


@pytest.mark.parametrize(
    ("phrase", "part", "noun"),
    [
        ("The small brown Dog on a sofa", "The small brown Dog", "dog"),
        ("two slices of bread with butter", "two slices of bread", "bread"),
        ("a cup of tea", "a cup", "cup"),
        ("a cutting board", "a cutting board", "board"),
        ("the next cup", "the next cup", "cup"),
        ("a man, and a dog", "a man", "man"),
        ("a dog that barks", "a dog", "dog"),
        ("onions", "onions", "onions"),
        ("?!", "?!", ""),
        ("", "", ""),
    ],
)
def test_heads(phrase: str, part: str, noun: str):
    assert (head_part(phrase), head_noun(phrase)) == (part, noun)
