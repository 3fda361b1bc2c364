"""What must not be in a file, and how cards are read again."""

import pytest

from hub_cards.publication import Publication, check_files, check_text
from hub_cards.rendering import check_card, is_signed, render, sign, split_sections


@pytest.mark.parametrize(
    "text",
    [
        b'{"output_dir": "/home/somebody/run"}',
        b"see /scratch/project_1/data",
        b"file:///mnt/disk/clip.mp4",
        b"videos in C:\\Users\\somebody",
        b"HF_TOKEN=hf_" + b"abcDEF12" * 4,
        b"-----BEGIN OPENSSH PRIVATE KEY-----",
        b"ghp_" + b"a1b2" * 9,
    ],
)
def test_what_only_this_machine_should_know_is_found(text):
    with pytest.raises(ValueError, match=r"config.json, line 2: "):
        check_text(b"\n" + text, "config.json")


@pytest.mark.parametrize(
    "text",
    [
        b"https://example.org/home/somebody",
        b"./data/x and ../tmp/y and outputs/tmp/z",
        b"a fraction of 3/4, /home, and/or /tmp",
        b"hf_hub_download, hf_test and hf://datasets/org/name",
        b"<p>a man</p> cuts",
    ],
)
def test_ordinary_text_is_left_alone(text):
    check_text(text, "README.md")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a/b.pkl", "weights.PT", "arrays.npy"])
def test_pickles_are_refused_whatever_is_in_them(name):
    with pytest.raises(ValueError, match="may be a pickle, which runs code"):
        check_files(Publication("dataset", "org/x", {name: b""}))


def test_the_code_that_goes_with_a_model_has_nothing_of_a_machine_in_it():
    from hub_cards.preparing import remote_code_files
    from tests.hub_cards.publishing import DEMO

    publication = Publication("model", "org/x", remote_code_files(DEMO))
    check_files(publication)
    assert "modeling_grove.py" in publication.files and publication.checks


def test_a_signature_tells_whether_somebody_changed_a_card():
    text = sign("---\nlicense: mit\n---\n\nText.\n")
    assert is_signed(text) and sign(text) == text
    assert not is_signed(text.replace("Text", "My text")) and not is_signed("Text.\n")
    assert is_signed(sign(text.replace("Text", "My text")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nlicense: mit\n---\nBy [More Information Needed].\n", "line 4: '.More Information Needed.' was left"),
        ("---\nlicense: mit\n---\nLoad ORG/name.\n", "line 4: 'ORG/' was left"),
        ("---\nlicense: mit\n---\nTODO\n", "line 4: 'TODO' was left"),
        ("---\nlicense: mit\n---\n{{ name }}\n", "line 4: '{{' was left"),
        ("---\ntags: [x]\n---\nText.\n", "no `license` in its metadata"),
        ("---\nlicense: [\n---\nText.\n", "its metadata cannot be read"),
    ],
)
def test_a_card_that_is_not_finished_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        check_card(text)


def test_a_template_that_lacks_something_is_an_error():
    with pytest.raises(Exception, match="'opening' is undefined"):
        render("metric", sections={}, contact="x")


def test_sections_of_a_card_are_found_again():
    opening, sections = split_sections("# Title\n\nWords.\n\n## One\n\nA\n\n### Deeper\n\n## Two\nB\n")
    assert opening == "# Title\n\nWords." and sections == {"One": "A\n\n### Deeper", "Two": "B"}
