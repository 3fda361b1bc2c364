"""Language models: a real server that behaves and misbehaves, and a real, tiny model of transformers."""

import pytest
import torch
from transformers import LlamaForCausalLM

from pipeline_annotate.chat_models import HttpChat, TransformersChat
from pipeline_annotate.language_model import LanguageModelClassifier
from pipeline_annotate.phrase_labels import Question

from . import tiny_models
from .chat_server import chat_server

HELLO = [{"role": "user", "content": "hello"}]


def chat(server, **options):
    return HttpChat(server.url, "m", **{"wait": 0.01, "timeout": 5.0, **options})


def test_answers_come_in_order_and_several_are_asked_for_at_once():
    with chat_server(("slow", 0.3, "yes")) as server:
        answers = chat(server, at_once=4).answer([[{"role": "user", "content": str(number)}] for number in range(8)])
        assert answers == ["yes"] * 8 and 2 <= server.most <= 4
        path, body = server.requests[0]
        assert (
            path == "/v1/chat/completions"
            and body["model"] == "m"
            and body["temperature"] == 0
            and body["max_tokens"] == 128
        )
        assert chat(server).describe() == {"back_end": "http", "model": "m", "max_tokens": 128}


def test_each_conversation_gets_its_own_answer():
    with chat_server("one", "two", "three") as server:
        assert chat(server, at_once=1).answer([HELLO] * 3) == ["one", "two", "three"]
        assert chat(server).answer([]) == []


def test_the_users_token_of_the_hub_goes_to_no_server(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with chat_server("yes") as server:
        chat(server).answer([HELLO])
        chat(server, token="mine").answer([HELLO])
        assert server.tokens == ["Bearer none", "Bearer mine"]


@pytest.mark.parametrize("trouble", [500, 503, 429, ("slow", 1.5, "late"), ("cut", "half")], ids=str)
def test_what_may_pass_is_tried_again(trouble, caplog):
    with chat_server(trouble, trouble, "at last") as server:
        assert chat(server, timeout=0.5).answer([HELLO]) == ["at last"]
        assert len(server.requests) == 3 and caplog.text.count("trying again") == 2


@pytest.mark.parametrize(
    ("script", "message", "requests"),
    [
        ([500], "status 500", 3),
        ([404], "status 404", 1),
        ([401], "status 401", 1),
        ([("raw", b"<html>")], "expected a chat completion", 1),
        ([("raw", b'{"choices": []}')], "expected a chat completion", 1),
        ([("cut", "half")], "try 3 of 3", 3),
    ],
)
def test_what_does_not_pass_is_one_line(script, message, requests):
    with chat_server(*script) as server:
        with pytest.raises(ValueError, match=message) as error:
            chat(server, tries=3).answer([HELLO])
        assert server.url in str(error.value) and "\n" not in str(error.value) and len(server.requests) == requests


def test_a_conversation_that_is_too_long_is_not_the_end_of_the_others():
    with chat_server("yes", 400, "no") as server:
        first, refused, third = chat(server, at_once=1).answer([HELLO] * 3)
        assert (first, third) == ("yes", "no") and refused.startswith("status 400")


def test_a_server_that_is_not_there():
    with chat_server("x") as server:
        url = server.url
    with pytest.raises(ValueError, match="try 2 of 2"):
        HttpChat(url, "m", tries=2, wait=0.01, timeout=1.0).answer([HELLO])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.llama(tmp_path_factory.mktemp("models") / "llama")


LONG = [{"role": "user", "content": "hello you there, you and you"}, {"role": "assistant", "content": "a cup"}, *HELLO]


def test_answers_do_not_depend_on_the_batch(folder):
    model = TransformersChat(str(folder), max_tokens=12)
    together = model.answer([HELLO, LONG, HELLO])
    alone = [TransformersChat(str(folder), max_tokens=12, batch_size=1).answer([one])[0] for one in (HELLO, LONG)]
    assert together == [*alone, alone[0]] and any(together)
    described = model.describe()
    assert described["model"] == folder.name and len(described["fingerprint"]) == 32


def test_likelihoods_are_those_of_the_tokens_one_after_the_other(folder):
    model = TransformersChat(str(folder), batch_size=2)
    answers = [["a cup", "a", "None"], ["hello you"]]
    found = model.likelihoods([HELLO, LONG], answers)
    encode = lambda text: model.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    for conversation, allowed, values in zip((HELLO, LONG), answers, found, strict=True):
        prompt = encode(model.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
        for answer, value in zip(allowed, values, strict=True):
            ids, expected = [*prompt], 0.0
            for token in encode(f"{answer}</s>"):
                with torch.no_grad():
                    logits = model.model(torch.tensor([ids])).logits[0, -1].float()
                expected += float(logits.log_softmax(-1)[token])
                ids.append(token)
            assert value == pytest.approx(expected, abs=1e-3)


def test_by_likelihood_only_allowed_answers_come_out(folder):
    classifier = LanguageModelClassifier(TransformersChat(str(folder)), by_likelihood=True)
    ((label,), none) = classifier.classify([Question(("a guy",), ("a man", "a cup")), Question((), ("a man",))])
    assert label in (0, 1, None) and none == []


def test_models_that_do_not_fit_are_one_line(folder, tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded"):
        TransformersChat(str(tmp_path / "nothing"))
    tokenizer = TransformersChat(str(folder)).tokenizer
    tokenizer.chat_template = None
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="has no chat template"):
        TransformersChat(str(tmp_path / "plain"))
