"""
Language models behind one protocol: conversations in, answers out.

`transformers` runs a model here, in batches; `http` asks any server that speaks OpenAI's chat protocol (vLLM, TGI, llama.cpp)
through `huggingface_hub.InferenceClient`, several requests at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError
from transformers import BitsAndBytesConfig

from .model_identity import model_identity, pinned_revision
from .stage_files import in_batches

logger = logging.getLogger(__name__)

Conversation = Sequence[Mapping[str, str]]  # messages: role and content

# httpx's, of whichever version the client of the Hub uses, and what it raises itself.
_ERRORS: tuple[type[Exception], ...] = (InferenceTimeoutError, OSError, HfHubHTTPError.__mro__[1])

_TOO_MUCH = (400, 413, 422)  # how servers refuse a text that is too long

DEFAULT_MODEL = "meta-llama/Llama-2-7b-chat-hf"  # the paper's is Llama-2 of a size that it does not say


class ChatModel(Protocol):
    """A language model."""

    def describe(self) -> Mapping[str, Any]:
        """What stands in each record's provenance."""
        ...

    def answer(self, conversations: Sequence[Conversation]) -> Sequence[str]:
        """The answer to each conversation, greedily decoded; it may be cut off."""
        ...


class HttpChat:
    """
    The back end `http`.

    Args:
        url (`str`): of the server, with or without `/v1`.
        model (`str`): name that the server knows it by.
        max_tokens (`int`, *optional*, defaults to 128): of an answer.
        timeout (`float`, *optional*, defaults to 120): seconds for a request.
        tries (`int`, *optional*, defaults to 4): of a request that fails for a reason that may pass: no connection, no answer in
            time, status 429 or 5xx.
        at_once (`int`, *optional*, defaults to 8): requests.
        wait (`float`, *optional*, defaults to 1.0): seconds before the second try; twice as long before each further one.
        token (`str`, *optional*): for servers that want one.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        max_tokens: int = 128,
        timeout: float = 120.0,
        tries: int = 4,
        at_once: int = 8,
        wait: float = 1.0,
        token: str | None = None,
    ):
        self.url, self.model, self.max_tokens = url, model, max_tokens
        self.tries, self.at_once, self.wait = tries, at_once, wait
        # Without one the client would send the user's token of the Hub to whatever server this is.
        self._client = InferenceClient(base_url=url, timeout=timeout, token=token or "none")

    def describe(self) -> dict[str, Any]:
        """Its settings; of the server only what it calls the model, as addresses are nobody's business."""
        return {"back_end": "http", "model": self.model, "max_tokens": self.max_tokens}

    def answer(self, conversations: Sequence[Conversation]) -> list[str]:
        """
        The answer to each conversation; of one that is too long for the server, what it says of that.

        Raises:
            `ValueError`: if the server does not answer, refuses, or answers something else than a completion.
        """
        with ThreadPoolExecutor(min(self.at_once, max(1, len(conversations)))) as threads:
            return [*threads.map(self._answer, conversations)]

    def _answer(self, conversation: Conversation) -> str:
        for attempt in range(1, self.tries + 1):
            try:
                completion = self._client.chat_completion(
                    [dict(message) for message in conversation],
                    model=self.model,
                    max_tokens=self.max_tokens,
                    temperature=0.0,
                    seed=0,
                )
                return completion.choices[0].message.content or ""
            except _ERRORS as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                if status in _TOO_MUCH:  # of this conversation, not of the server
                    return self._said(error, status)
                passing = status is None or status == 429 or status >= 500
                if not passing or attempt == self.tries:
                    raise ValueError(
                        f"{self.url}: {self._said(error, status)} (try {attempt} of {self.tries})"
                    ) from error
                logger.warning("%s: %s; trying again", self.url, self._said(error, status))
                time.sleep(self.wait * 2 ** (attempt - 1))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{self.url}: expected a chat completion ({type(error).__name__}: {error})") from error
        raise AssertionError  # the last try returns or raises

    @staticmethod
    def _said(error: Exception, status: int | None) -> str:
        text = " ".join(str(error).split())[:200]
        return f"status {status}: {text}" if status else f"{type(error).__name__}: {text}"


class TransformersChat:
    """
    The back end `transformers`: greedy decoding in batches, with the model's own chat template.

    Args:
        model (`str`, *optional*, defaults to Llama-2 7B chat): folder or Hub id of a causal language model with a chat template.
        revision (`str`, *optional*): of a Hub id.
        max_tokens (`int`, *optional*, defaults to 128): of an answer.
        batch_size (`int`, *optional*, defaults to 16): conversations of a batch.
        device (`str`, *optional*): by default CUDA where there is one.
        quantization (`str`, *optional*): "4bit" or "8bit", by bitsandbytes.

    Raises:
        `ValueError`: if the model cannot be loaded, or has no chat template.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        max_tokens: int = 128,
        batch_size: int = 16,
        device: str | None = None,
        quantization: str | None = None,
    ):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.max_tokens, self.batch_size, self.quantization = max_tokens, batch_size, quantization
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        revision = pinned_revision(model, revision)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, padding_side="left")
            options = {} if quantization is None else {"quantization_config": _quantized(quantization)}
            self.model = AutoModelForCausalLM.from_pretrained(
                model, revision=revision, dtype="auto", use_safetensors=True, device_map=device, **options
            ).eval()
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(
                f"language model {model!r}: cannot be loaded ({' '.join(str(error).split())[:300]})"
            ) from error
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"language model {model!r}: its tokenizer has no chat template; expected a model for conversations"
            )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._identity = model_identity(model, revision)

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        settings = {"max_tokens": self.max_tokens, "quantization": self.quantization}
        return {"back_end": "transformers", **self._identity, **settings}

    def _prompts(self, conversations: Sequence[Conversation]) -> list[str]:
        template = self.tokenizer.apply_chat_template
        return [template([*map(dict, one)], tokenize=False, add_generation_prompt=True) for one in conversations]

    @torch.inference_mode()
    def answer(self, conversations: Sequence[Conversation]) -> list[str]:
        """The answer to each conversation."""
        answers: list[str] = []
        for prompts in in_batches(self._prompts(conversations), self.batch_size):
            inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(
                self.model.device
            )
            found = self.model.generate(
                **inputs, max_new_tokens=self.max_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
            answers += self.tokenizer.batch_decode(found[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return answers

    @torch.inference_mode()
    def likelihoods(self, conversations: Sequence[Conversation], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        """
        Log-likelihoods of allowed answers, each with the token that ends it, so that no answer gains by being the beginning of
        another one.

        Args:
            conversations (`Sequence[Conversation]`): that are to be answered.
            answers (`Sequence[Sequence[str]]`): allowed ones, for each conversation.
        """
        end = self.tokenizer.eos_token or ""
        rows = [
            (prompt, f"{answer}{end}")
            for prompt, allowed in zip(self._prompts(conversations), answers, strict=True)
            for answer in allowed
        ]
        values: list[float] = []
        for part in in_batches(rows, self.batch_size):
            values += self._likelihoods(part)
        counted = iter(values)
        return [[next(counted) for _ in allowed] for allowed in answers]

    def _likelihoods(self, rows: Sequence[tuple[str, str]]) -> list[float]:
        """Of the second texts, given the first ones."""
        encode = lambda text: self.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
        given, said = zip(*((encode(prompt), encode(answer)) for prompt, answer in rows), strict=True)
        length = max(len(first) + len(second) for first, second in zip(given, said, strict=True))
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, (first, second) in enumerate(zip(given, said, strict=True)):
            ids[row, length - len(first) - len(second) :] = torch.tensor([*first, *second])
            mask[row, length - len(first) - len(second) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        device = self.model.device
        # Only of the answers: those of whole prompts would be gigabytes.
        kept = max(map(len, said)) + 1
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            logits_to_keep=kept,
        ).logits.float()
        scores = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1 - kept :, None].to(device))[..., 0].cpu()
        return [float(scores[row, -len(second) :].sum()) for row, second in enumerate(said)]


def _quantized(quantization: str) -> BitsAndBytesConfig:
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


__all__ = ["DEFAULT_MODEL", "ChatModel", "Conversation", "HttpChat", "TransformersChat"]
