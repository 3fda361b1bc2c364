"""
A spaCy pipeline for tests: tagger, lemmas and parser in ClearNLP's labels, trained on captions of a template grammar.

    python -m tests.pipeline_annotate.spacy_pipeline FOLDER

It knows that grammar only. It has the labels of `en_core_web_sm`, which needs GitHub to be installed.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import spacy
from spacy.tokens import Doc
from spacy.training import Example

from dataset_builders.shapes.vocabulary import COLORS, FURNITURE, OBJECTS, PLURALS, SIZES, gerund, third_person

PEOPLE = ("man", "woman", "child", "person", "guy", "lady", "kid")
VERBS = ("hold", "carry", "push", "pull", "kick", "cut", "stir", "open", "use", "lift", "throw", "reach")
ALONE = ("walk", "stand", "run", "wave", "sit", "jump")
GROUNDS = ("floor", "grass", "sand", "ground", "kitchen", "park", "street", "air", "beach")


class Words:
    """Words with their tags, lemmas, heads and labels, in the making."""

    def __init__(self) -> None:
        self.rows: list[list] = []

    def add(self, word: str, pos: str, label: str, head: int | None = None, lemma: str | None = None) -> int:
        """Adds a word; returns its place. Without a head it is the root."""
        self.rows.append([word, pos, label, len(self.rows) if head is None else head, lemma or word])
        return len(self.rows) - 1

    def noun(
        self, rng: random.Random, label: str, head: int | None, kind: str = "object", preposition: bool = True
    ) -> int:
        """Adds a noun with its article and adjectives."""
        plural = kind == "object" and rng.random() < 0.2
        start = len(self.rows)
        adjectives = (
            rng.sample((*SIZES, *COLORS, "striped", "plain"), rng.choice((0, 0, 1, 1, 2))) if kind != "person" else []
        )
        name = rng.choice(
            PEOPLE
            if kind == "person"
            else GROUNDS
            if kind == "ground"
            else (*OBJECTS, *FURNITURE, "knife", "bowl", "area")
        )
        plural = plural and name in PLURALS
        words = (PLURALS[name] if plural else name).split()
        place = start + 1 + len(adjectives) + len(words) - 1
        self.add(
            "two" if plural else rng.choice(("a", "the", "an")),
            "NUM" if plural else "DET",
            "nummod" if plural else "det",
            place,
        )
        for adjective in adjectives:
            self.add(adjective, "ADJ", "amod", place)
        for word in words[:-1]:
            self.add(word, "NOUN", "compound", place)
        self.add(words[-1], "NOUN", label, place if head is None else head, name.split()[-1])
        if kind == "person" and preposition and rng.random() < 0.3:
            at = self.add("in", "ADP", "prep", place)
            self.noun(rng, "pobj", at)
        return place

    def place(self, rng: random.Random, head: int) -> None:
        """Adds "on the grass" or "behind a red box"."""
        at = self.add(
            rng.choice(("on", "on", "in", "in", "behind", "near", "under", "to", "over")), "ADP", "prep", head
        )
        self.noun(rng, "pobj", at, rng.choice(("object", "ground", "ground")))

    def doc(self, vocab: spacy.Vocab) -> Doc:
        """The document."""
        words, pos, labels, heads, lemmas = zip(*self.rows, strict=True)
        return Doc(vocab, words=list(words), pos=list(pos), deps=list(labels), heads=list(heads), lemmas=list(lemmas))


def sentence(rng: random.Random, vocab: spacy.Vocab) -> Doc:
    """A caption of one of some forms."""
    words = Words()
    form = rng.choice(("holding", "holds", "holds", "passive", "there", "thing", "and", "and", "and", "walking"))
    person = "person" if rng.random() < 0.8 else "object"
    if form in ("holding", "walking", "thing", "and"):
        subject = words.noun(rng, "ROOT", None, person if form != "thing" else "object")
        count = rng.choice((2, 3)) if form == "and" else 1
        for number in range(count):
            if number:
                last, before = number == count - 1, subject
                words.add("and" if last else ",", "CCONJ" if last else "PUNCT", "cc" if last else "punct", before)
                subject = words.noun(rng, "conj", before, kind := rng.choice(("person", "object")))
                if kind == "object" and rng.random() < 0.8:
                    words.place(rng, subject)
                    continue
            if form == "thing":
                words.place(rng, subject)
            elif form == "walking" or rng.random() < 0.4:
                verb = rng.choice(ALONE)
                at = words.add(gerund(verb), "VERB", "acl", subject, verb)
                if rng.random() < 0.6:
                    words.place(rng, at)
            else:
                _gripping(words, rng, subject)
    elif form == "holds":
        subject = words.noun(rng, "nsubj", 0, person)
        verb = rng.choice(VERBS[:-1])
        root = words.add(third_person(verb), "VERB", "ROOT", None, verb)
        words.rows[subject][3] = root
        words.noun(rng, "dobj", root)
        if rng.random() < 0.5:
            words.place(rng, root)
        if rng.random() < 0.3:
            words.add("and", "CCONJ", "cc", root)
            other = rng.choice(VERBS[:-1])
            second = words.add(third_person(other), "VERB", "conj", root, other)
            words.noun(rng, "dobj", second)
    elif form == "passive":
        subject = words.noun(rng, "nsubjpass", 0)
        be = words.add("is", "AUX", "auxpass", 0, "be")
        verb = rng.choice(("push", "pull", "kick", "open", "lift"))
        root = words.add(f"{verb}ed", "VERB", "ROOT", None, verb)
        words.rows[subject][3] = words.rows[be][3] = root
        by = words.add("by", "ADP", "agent", root)
        words.noun(rng, "pobj", by, "person", preposition=False)
    else:
        there = words.add("there", "PRON", "expl", 1)
        root = words.add("is", "VERB", "ROOT", None, "be")
        words.rows[there][3] = root
        noun = words.noun(rng, "attr", root, person)
        if rng.random() < 0.5:
            words.place(rng, noun)
    if rng.random() < 0.5:
        root = next(place for place, row in enumerate(words.rows) if row[2] == "ROOT")
        words.add(".", "PUNCT", "punct", root)
    return words.doc(vocab)


def _gripping(words: Words, rng: random.Random, subject: int) -> None:
    verb = rng.choice(VERBS)
    at = words.add(gerund(verb), "VERB", "acl", subject, verb)
    if verb == "reach":
        at = words.add("for", "ADP", "prep", at)
        words.noun(rng, "pobj", at)
        return
    if verb in ("hold", "lift") and rng.random() < 0.4:
        words.add("up", "ADP", "prt", at)
    words.noun(rng, "dobj", at)
    if rng.random() < 0.3:
        words.place(rng, at)


def train(folder: Path, captions: int = 500, rounds: int = 12, seed: int = 0) -> Path:
    """Trains the pipeline and writes it to a folder."""
    rng, pipeline = random.Random(seed), spacy.blank("en")
    spacy.util.fix_random_seed(seed)
    width = pipeline.add_pipe("tok2vec").model.get_dim("nO")
    shared = {"model": {"tok2vec": {"@architectures": "spacy.Tok2VecListener.v1", "width": width}}}
    for name in ("morphologizer", "trainable_lemmatizer", "parser"):
        pipeline.add_pipe(name, config=shared)
    examples = [
        Example(pipeline.make_doc(" ".join(token.text for token in doc)), doc)
        for doc in (sentence(rng, pipeline.vocab) for _ in range(captions))
    ]
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(rounds):
        rng.shuffle(examples)
        for batch in spacy.util.minibatch(examples, 32):
            pipeline.update(batch, sgd=optimizer)
    pipeline.meta["name"] = "test_captions"
    folder.parent.mkdir(parents=True, exist_ok=True)
    pipeline.to_disk(folder)
    return folder


if __name__ == "__main__":
    train(Path(sys.argv[1]))
