"""Prompts, tagged captions and the tolerant parser."""

import hashlib
import json
import random
import re
from pathlib import Path

import pytest

from modeling_grove.text_grove import (
    QUESTION_TEMPLATES,
    Phrase,
    build_prompt,
    find_phrase_spans,
    format_training_answer,
    parse_grounded_text,
    read_caption,
    read_tagged_caption,
    tag_caption,
)

PROMPTS = json.loads((Path(__file__).parents[1] / "golden" / "grove" / "prompts.json").read_text())
# Annotations that the original handles right: phrases tagged, each once.
READABLE = [entry for entry in PROMPTS["parse"] if "answer" in entry]
SOUND = [entry for entry in READABLE if len({tuple(s) for s in entry["tokens_positive"]}) == len(entry["labels"])]


def test_question_templates():
    digest = hashlib.sha256("\n".join(QUESTION_TEMPLATES).encode()).hexdigest()
    assert digest == PROMPTS["sha256_video_grounding_questions"]


def test_prompt():
    assert build_prompt() == PROMPTS["inference_prompt"]["prompt_string"]
    entry = PROMPTS["parse"][1]
    assert build_prompt(entry["question"], entry["answer"]) == entry["conversation"]


def test_sound_annotations_agree_with_the_original():
    assert len(SOUND) == 9
    for entry in SOUND:
        caption = entry["input_caption"].strip('"').strip()
        spans = find_phrase_spans(caption, entry["input_tagged_caption"], entry["input_phrases"])
        assert sorted(map(list, spans)) == entry["tokens_positive"]
        assert format_training_answer(caption, spans) == entry["answer"]


def test_duplicate_phrases_are_wrapped_once_each():
    entry = next(e for e in PROMPTS["parse"] if e["input_phrases"] == ["man", "cup", "man"])
    spans = find_phrase_spans(entry["input_caption"], entry["input_tagged_caption"], entry["input_phrases"])
    assert spans == [(2, 5), (14, 17), (29, 32)]
    answer = format_training_answer(entry["input_caption"], spans)
    assert answer == "a <p> man </p> [DET] hands a <p> cup </p> [DET] to another <p> man </p> [DET]."


def test_phrase_spans_refer_to_the_caption():
    # The annotation of a quoted, differently spaced caption.
    caption = '"The  Chef adds İçli salt. " '
    spans = find_phrase_spans(caption, "The <p> chef </p> adds <p>İçli salt</p>.", ["İÇLi SALT", "Chef"])
    assert [caption[start:end] for start, end in spans] == ["İçli salt", "Chef"]


@pytest.mark.parametrize(
    ("tagged", "phrases", "message"),
    [
        ("A <p>girl</p> eats cake.", ["girl", "cake"], r"phrase 'cake' is listed 1 time"),
        ("<p>Look</p>: a girl eats cake.", ["look"], r"is tagged in a part of"),
        ("A <p>girl</p> eats cake.", ["girl", "girl"], r"phrase 'girl' is listed 2 time"),
        ("A <p>boy</p> eats cake.", ["boy"], r"is not the caption"),
        ("A <p>girl eats cake.", ["girl"], r"unclosed <p>"),
        ("A girl</p> eats cake.", ["girl"], r"closes no phrase"),
        ("A <p><p>girl</p></p> eats cake.", ["girl"], r"opens a phrase inside another"),
        ("A <p> </p> girl eats cake.", ["girl"], r"empty phrase"),
    ],
)
def test_phrase_span_errors(tagged, phrases, message):
    with pytest.raises(ValueError, match=message):
        find_phrase_spans("A girl eats cake.", tagged, phrases)


def test_format_sorts_and_keeps_offsets():
    assert format_training_answer("İ man, a CUP", [(9, 12), (2, 5)]) == "İ <p> man </p> [DET], a <p> cup </p> [DET]"
    assert format_training_answer("Nothing.", []) == "nothing."


@pytest.mark.parametrize(
    ("caption", "spans", "message"),
    [
        ("a big man", [(0, 5), (2, 9)], "overlaps"),
        ("a big man", [(6, 9), (6, 9)], "overlaps"),
        ("a big man", [(6, 10)], "not inside the caption of 9 characters"),
        ("a big man", [(3, 3)], "is empty"),
        ("a <p>man</p>", [(5, 8)], "cannot hold '<p>'"),
    ],
)
def test_format_errors(caption, spans, message):
    with pytest.raises(ValueError, match=message):
        format_training_answer(caption, spans)


@pytest.mark.parametrize(
    ("caption", "phrases", "expected"),
    [
        ("A <p>man</p> runs.", None, "a <p> man </p> [DET] runs."),
        ("a <p> man </p> [DET] runs.", None, "a <p> man </p> [DET] runs."),
        ("The butter knife is next to a knife.", ["knife", "butter knife"],
         "the <p> butter knife </p> [DET] is next to a <p> knife </p> [DET]."),
        ("A man and a woman", ["man"], "a <p> man </p> [DET] and a woman"),
        ("A woman and a man", ["Man"], "a woman and a <p> man </p> [DET]"),
        ("A man hits a man", ["man", "man"], "a <p> man </p> [DET] hits a <p> man </p> [DET]"),
        ("A <p>man</p> hits a <p>man</p>", ["man"], "a <p> man </p> [DET] hits a man"),
        ("The person in red.", ["The person in red."], "<p> the person in red. </p> [DET]"),
        ("男人在切胡萝卜", ["胡萝卜"], "男人在切<p> 胡萝卜 </p> [DET]"),
    ],
)  # fmt: skip
def test_tag_caption(caption, phrases, expected):
    assert tag_caption(caption, phrases) == expected


def test_read_caption_keeps_case_and_order():
    caption, phrases = read_caption("The Chef adds Salt.", ["salt", "the chef"])
    assert caption == "The Chef adds Salt."
    assert phrases == [Phrase("The Chef", (0, 8)), Phrase("Salt", (14, 18))]


@pytest.mark.parametrize(
    ("caption", "phrases", "message"),
    [
        ("A man runs.", None, "no <p>phrase</p>"),
        ("A man runs.", [], "`phrases` is empty"),
        ("A man runs.", ["dog"], "phrase 'dog' has no"),
        ("A man runs.", ["man", "man"], "phrase 'man' has no"),
        ("A man runs.", [" "], "phrase ' ' is empty"),
    ],
)
def test_tag_caption_errors(caption, phrases, message):
    with pytest.raises(ValueError, match=message):
        tag_caption(caption, phrases)


@pytest.mark.parametrize(
    ("text", "caption", "phrases", "det_phrase"),
    [
        # As written, as the original's slow tokenizer decodes it, and without blanks.
        ("a <p> man </p> [DET] cuts a <p> carrot </p> [DET].</s>", "a man cuts a carrot.", ["man", "carrot"], [0, 1]),
        (
            "a  <p> man  </p> [DET] cuts a  <p> carrot  </p> [DET] .</s>",
            "a man cuts a carrot.",
            ["man", "carrot"],
            [0, 1],
        ),
        ("a<p>man</p>[DET]cuts a<p>carrot</p>[DET].", "a man cuts a carrot.", ["man", "carrot"], [0, 1]),
        ("", "", [], []),
        ("no tags at all.</s>", "no tags at all.", [], []),
        # Phrases without [DET] and [DET] without phrase.
        ("a <p> man </p> cuts a <p> carrot </p> [DET]</s>", "a man cuts a carrot", ["man", "carrot"], [1]),
        ("a <p> man </p> and <p> dog </p> [DET] [DET]", "a man and dog", ["man", "dog"], [1, 0]),
        ("a <p> man </p> [DET] [DET] cuts</s>", "a man cuts", ["man"], [0, None]),
        ("[DET]</s>", "", [], [None]),
        ("a [DET] man </p> [DET] runs", "a man runs", [], [None, None]),
        # Unclosed, doubled, nested, empty and stray tags.
        ("a <p> man cuts a <p> carrot </p> [DET]</s>", "a man cuts a carrot", ["carrot"], [0]),
        ("a <p> <p> man </p> </p> [DET] runs", "a man runs", ["man"], [0]),
        ("</p> x <p> y </p> [DET]", "x y", ["y"], [0]),
        ("a <p> </p> [DET] man", "a man", [], [None]),
        ("a <p> man [DET] runs", "a man runs", [], [None]),
        ("a <p> big pan", "a big pan", [], []),
        ("a  <p>  big   pan  </p> [DET]</s>", "a big pan", ["big pan"], [0]),
        # Text that is not a tag, other tokens, quotes.
        ("a <p> man </p> [DET] < b and c > d</s>", "a man < b and c > d", ["man"], [0]),
        ("<s> a <p> <unk>man </p> [DET] </s></s><unk>", "a man", ["man"], [0]),
        ("'a <p> dog </p> [DET] runs'</s>", "a dog runs", ["dog"], [0]),
        ("the <p> chefs </p> [DET] ' pans", "the chefs' pans", ["chefs"], [0]),
        # Blanks around tags that the language does not have; those that it has stay.
        ("the  <p> man  </p> [DET] 's ( <p> old </p> [DET] ) hat .", "the man's (old) hat .", ["man", "old"], [0, 1]),
        (
            "a t- <p> shirt  </p> [DET] , <p> jalapeño  </p> [DET] ;",
            "a t-shirt, jalapeño;",
            ["shirt", "jalapeño"],
            [0, 1],
        ),
    ],
)
def test_parse(text, caption, phrases, det_phrase):
    parsed = parse_grounded_text(text)
    assert parsed.caption == caption
    assert [phrase.text for phrase in parsed.phrases] == phrases
    assert parsed.det_phrase == det_phrase
    assert all(caption[start:end] == phrase for phrase, (start, end) in parsed.phrases)


def test_phrase_det_is_the_inverse():
    assert parse_grounded_text("a <p> man </p> and <p> dog </p> [DET] [DET] [DET]").phrase_det == [1, 0]
    assert parse_grounded_text("a <p> man </p> and <p> dog </p> [DET]").phrase_det == [None, 0]


def test_training_answers_parse_back():
    for entry in SOUND:
        parsed = parse_grounded_text(entry["answer"] + "</s>")
        assert parsed.caption == entry["caption"]
        assert [list(phrase.span) for phrase in parsed.phrases] == entry["tokens_positive"]
        assert parsed.det_phrase == list(range(len(entry["labels"])))
        decoded = parse_grounded_text(entry["supervised_text"])
        assert decoded == parsed


def test_parser_takes_any_tag_soup():
    rng = random.Random(0)
    atoms = ["<p>", "</p>", "[DET]", "</s>", "<unk>", "<video>", " ", "  ", "\n", "\u3000", "man", "a", "é", "5"]
    atoms += [".", ",", "<", ">", "/", "p", "'", "-", "(", "[", "]", "DET", "'s", "\ufffd", '"']
    for _ in range(5000):
        text = "".join(rng.choices(atoms, k=rng.randint(0, 24)))
        parsed = parse_grounded_text(text)
        caption = parsed.caption
        assert len(parsed.det_phrase) == text.count("[DET]"), text
        assert caption == " ".join(caption.split()), text
        assert not re.search(r"</?p>|\[DET\]|</s>", caption), text
        # Letters are never invented or lost.
        kept = re.sub(r"<p>|</p>|\[DET\]|</s>|<unk>|<video>|'|\s", "", text)
        assert re.sub(r"['\s]", "", caption) == kept, text
        end_of_last = 0
        for phrase, (start, end) in parsed.phrases:
            assert end_of_last <= start < end <= len(caption), text
            assert caption[start:end] == phrase == phrase.strip(), text
            end_of_last = end
        paired = [index for index in parsed.det_phrase if index is not None]
        assert len(paired) == len(set(paired)) and all(index < len(parsed.phrases) for index in paired), text


def test_answers_of_random_captions_parse_back():
    rng = random.Random(1)
    words = ["a", "man", "big", "jalapeño", "t-shirt,", "(old)", "5", "o'clock", "dog.", "and/or"]
    for _ in range(500):
        caption = " ".join(rng.choices(words, k=rng.randint(1, 10)))
        spans = [match.span() for match in re.finditer(r"\w+", caption) if rng.random() < 0.3]
        parsed = parse_grounded_text(format_training_answer(caption, spans) + "</s>")
        assert parsed.caption == caption
        assert [phrase.span for phrase in parsed.phrases] == spans
        assert parsed.det_phrase == list(range(len(spans)))


def test_read_tagged_caption():
    assert read_tagged_caption("A <p>man</p> runs.") == ("A man runs.", [Phrase("man", (2, 5))])
