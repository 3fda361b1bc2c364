"""The Python tokenizer against CoreNLP's: recorded lines, and how often both agree on captions of many kinds."""

import json
import random
from pathlib import Path

import pytest

from eval.caption_jars import jar_tokens
from eval.captions import PUNCTUATION
from eval.ptb_tokenizer import python_tokens
from tests.dataset_builders.shapes.test_shapes_captions import told

ROOT = Path(__file__).parents[2]

# What CoreNLP 3.4.1 makes of some lines, without punctuation.
RECORDED = [
    (
        "A man's red cup, and the woman's (left) [DET] bowl.",
        "a man 's red cup and the woman 's -lrb- left -rrb- -lsb- det -rsb- bowl",
    ),
    (
        "He can't, won't and doesn't; I'd've, they're, ISN'T it?",
        "he ca n't wo n't and does n't i 'd 've they 're is n't it",
    ),
    ("Cannot gonna wanna lemme 'Tis 'twas gotta-go", "can not gon na wan na lem me 't is 't was gotta-go"),
    ("\"quoted\" 'quoted' \u201cquoted\u201d \u2018quoted\u2019 ``quoted''", "quoted quoted quoted quoted quoted"),
    ("state-of-the-art well--known a - b \u2013 c\u2014d ice- -cream", "state-of-the-art well known a b c d ice cream"),
    (
        "5 cups, 1,000.50 grams, 3rd 90s '90s 10:30 5pm 12/25/2014 2-3 2.5-inch .5 -5 5+5",
        "5 cups 1,000.50 grams 3rd 90s '90s 10:30 5pm 12/25/2014 2-3 2.5-inch .5 -5 5 +5",
    ),
    (
        "\xbd cup, 2 1/2 cups, 1\xbd cups, 2-1/2 cups, 50%, $5.99, US$ 5, \xa35, \u20ac5, 5\xa2, 20\xb0C",
        "1/2 cup 2\xa01/2 cups 1 1/2 cups 2-1/2 cups 50 % $ 5.99 us$ 5 # 5 $ 5 5 cents 20 \xb0 c",
    ),
    (
        "#2 #cat @home me@x.com www.x.com http://x.com/a?b=c, end.",
        "# 2 #cat @home me@x.com www.x.com http://x.com/a?b=c end",
    ),
    (
        "Mr. Smith etc. and the U.S. Army at 5 p.m. on Jan. 5 vs. Inc.",
        "mr. smith etc. and the u.s. army at 5 p.m. on jan. 5 vs. inc.",
    ),
    ("plan b. The man sat. plan b. he sat. No. 5 and no. they", "plan b the man sat plan b. he sat no. 5 and no they"),
    (
        "and/or w/o w/ AC/DC a/b/c a/b/c/d AT&T a&b R&D's C++ x_y",
        "and/or w/o w / ac/dc a/b/c a/b/c / d at&t a & b r&d 's c++ x_y",
    ),
    ("wow!! what?! no... wait...what hot.the cup wow!the cup", "wow !! what ?! no wait what hot.the cup wow!the cup"),
    (
        "o'clock O'Brien d'etre rock'n'roll 'em 'til c'mon y'all ma'am goin' dogs' fish'n'chips",
        "o'clock o'brien d'etre rock 'n' roll 'em 'til c'mon y' all ma'am goin dogs fish 'n' chips",
    ),
    (
        '<p>The Cup</p> holds <a href="x"> a<b a < b </s> &amp; &lt;',
        '<p> the cup </p> holds <a\xa0href="x"> a < b a < b </s> & <',
    ),
    (":) ;-) :D a:b *** a*b = ~ ^ | || \\ {a}", ":-rrb- ;--rrb- :d a b *** a * b = ~ ^ | | | \\ -lcb- a -rcb-"),
    (
        "caf\xe9 na\xefve-looking \xfcber \u4f60\u597d \u043f\u0440\u0438\u0432\u0435\u0442 a\U0001f600b \u2122 soft\xadhyphen",
        "caf\xe9 na\xefve-looking \xfcber \u4f60\u597d \u043f\u0440\u0438\u0432\u0435\u0442 a b \u2122 softhyphen",
    ),
    ("it\u2019s the person\u2019s 5'10\" 4'x8' 1990's 1960s'", "it 's the person 's 5 10 4 x8 1990 's 1960s"),
]


def words(lines):
    return [" ".join(word for word in line.split(" ") if word not in PUNCTUATION) for line in lines]


def agreement(captions):
    """The share of captions for which both make the same words."""
    lines = [" ".join(caption.splitlines()) for caption in captions]
    theirs, ours = words(jar_tokens(lines)), words(python_tokens(lines))
    return sum(first == second for first, second in zip(theirs, ours, strict=True)) / len(lines)


@pytest.mark.parametrize(("text", "tokens"), RECORDED)
def test_recorded_lines(text, tokens):
    assert words(python_tokens([text])) == [tokens]


@pytest.mark.java
def test_recorded_lines_are_what_the_jar_makes():
    assert words(jar_tokens([text for text, _ in RECORDED])) == [tokens for _, tokens in RECORDED]


def test_lines_stay_apart():
    assert python_tokens([]) == python_tokens([""]) == [""]
    assert python_tokens(["a cup.", "", "  ", "a pan"]) == ["a cup .", "", "", "a pan"]
    assert python_tokens(["a\rb", "c\r", "d\u2028e"]) == ["a", "b", "c", "d", "e"]


def test_a_single_letter_looks_at_the_next_line():
    """As CoreNLP does: "b." ends a sentence where a word follows that begins one."""
    assert python_tokens(["plan b.", "The man"]) == ["plan b .", "the man"]
    assert python_tokens(["plan b.", "a man"]) == ["plan b.", "a man"]


def test_any_text_is_taken():
    rng = random.Random(0)
    pieces = [
        *"aZ09 .,!?'\"-/:;()[]{}<>&@#$%*_+=~^|\\`",
        "\u2019",
        "\u00e9",
        "\u0301",
        "\u00bd",
        "\u4f60",
        "\U0001f600",
        "n't",
        "\x00",
    ]
    for _ in range(2000):
        lines = ["".join(rng.choices(pieces, k=rng.randint(0, 14))) for _ in range(3)]
        assert len(python_tokens(lines)) == 3
    # Nothing grows faster than the text.
    assert len(python_tokens(["a-" * 5000 + "@" + "(" * 5000])[0]) > 10_000


@pytest.mark.java
def test_agreement_on_recorded_captions():
    folder = ROOT / "tests" / "golden" / "eval" / "iground"
    truth = json.loads((folder / "ground_truth.json").read_text())
    predictions = json.loads((folder / "predictions.json").read_text())
    captions = [clip["caption"] for clip in truth.values()] + [clip["pred_text"] for clip in predictions.values()]
    assert agreement(captions) == 1.0


@pytest.mark.java
def test_agreement_on_captions_of_shapes():
    assert agreement([told(seed, "hard")[1].text for seed in range(100)]) == 1.0


@pytest.mark.java
def test_agreement_on_sentences_of_vidstg():
    path = ROOT.parent / "shared" / "data" / "annotations" / "vidstg_val_annotations.json"
    if not path.exists():
        pytest.skip("no ../shared/data/annotations/vidstg_val_annotations.json")
    videos = json.loads(path.read_text())
    sentences = [said["description"] for video in videos for said in (*video["captions"], *video["questions"])]
    assert len(videos) == 3996
    assert agreement(sentences) == 1.0
