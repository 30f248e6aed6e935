"""Prompts in the form that each family reads, as its own processor in transformers makes it, with whose token is where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models_store.errors import Unusable
from models_store.open_vocabulary.tokens import PHRASE_ENDS, Tokens, padded

AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Phrases:
    """Texts of many phrases, each as (ids, whose): token ids with the first and last mark, and of each token its prompt or -1."""

    chunks: tuple[tuple[list[int], list[int]], ...]

    @property
    def texts(self) -> int:
        return len(self.chunks)


@dataclass(frozen=True, eq=False)
class Queries:
    """`embedded`: (P, D) float32 of the model's text encoder, computed once for all pictures."""

    embedded: Tensor

    @property
    def texts(self) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class ClassesOfTask:
    """`embedded`: classes (P, 1, D), task (T, 1, D) and its mask (1, T), computed once for all pictures; `first`: prompt."""

    first: int
    embedded: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Classes:
    chunks: tuple[ClassesOfTask, ...]

    @property
    def texts(self) -> int:
        return len(self.chunks)


def phrase_of(prompt: str) -> str:
    """As Grounding DINO has it: in lower case, without the period that it gets at its end.

    Raises Unusable ``bad_prompt`` for a period or question mark within: either ends a phrase.
    """
    phrase = " ".join(prompt.lower().split()).rstrip(". ")
    if "." in phrase or "?" in phrase:
        raise Unusable(
            "bad_prompt",
            f"the prompt {prompt[:60]!r} has a period or a question mark within, where a phrase of Grounding DINO ends: leave it "
            "out, or make two prompts of it",
        )
    return phrase


def read_phrases(tokens: Tokens, prompts: Sequence[str], longest: int) -> Phrases:
    """As few texts of at most `longest` tokens as the phrases fill in their order.

    Whose a token is follows from the marks that end phrases, which are those that the model's own masks go by.
    """
    phrases = [phrase_of(prompt) for prompt in prompts]
    chunks: list[list[int]] = [[]]
    room = longest - 2
    for number, phrase in enumerate(phrases):
        # a period for one of the two marks around it
        size = len(tokens.ids(phrase)) - 1
        if size > longest - 2:
            raise _too_long(prompts[number], size + 2, longest)
        if size > room:
            chunks.append([])
            room = longest - 2
        chunks[-1].append(number)
        room -= size
    return Phrases(tuple(_text(tokens, phrases, chunk) for chunk in chunks))


def _text(tokens: Tokens, phrases: Sequence[str], numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    text = ". ".join(phrases[number] for number in numbers) + "."
    ids = list(tokens.tokenizer.encode(text).ids)
    whose, place, inside = [], -1, False
    for id in ids:
        if id in PHRASE_ENDS:
            whose.append(-1)
            inside = False
            continue
        place += not inside
        inside = True
        whose.append(numbers[place] if place < len(numbers) else -1)
    if place + 1 != len(numbers):
        lost = ", ".join(phrases[number] for number in numbers)[:200]
        raise Unusable(
            "bad_prompt",
            f"the tokenizer does not see {len(numbers)} prompts in {lost!r}: write them otherwise",
        )
    return ids, whose


def read_queries(tokens: Tokens, prompts: Sequence[str], module: nn.Module) -> Queries:
    """Each prompt by itself through the text encoder, once."""
    longest = module.config.text_config.max_position_embeddings
    rows = _each(tokens, prompts, longest)
    model = module.owlv2 if hasattr(module, "owlv2") else module.owlvit
    device = next(module.parameters()).device
    parts = []
    for start in range(0, len(rows), AT_ONCE):
        ids, attention = (torch.tensor(x, device=device) for x in padded(rows[start : start + AT_ONCE]))
        parts.append(model.get_text_features(input_ids=ids, attention_mask=attention).pooler_output)
    embedded = torch.cat(parts)
    return Queries(embedded / torch.linalg.norm(embedded, ord=2, dim=-1, keepdim=True))


def read_classes(tokens: Tokens, prompts: Sequence[str], module: nn.Module) -> Classes:
    """The prompts and tasks that name them, `Detect a, b.`, as many prompts in each as its text has room for."""
    longest = module.config.text_config.max_position_embeddings
    rows = _each(tokens, prompts, longest)
    chunks: list[list[int]] = [[]]
    for number in range(len(prompts)):
        if chunks[-1] and len(tokens.ids(_task(prompts, [*chunks[-1], number]))) > longest:
            chunks.append([])
        chunks[-1].append(number)
        if len(tokens.ids(_task(prompts, [number]))) > longest:
            raise _too_long(prompts[number], len(rows[number]), longest - 3)
    device = next(module.parameters()).device
    made = []
    for chunk in chunks:
        ids, attention = padded([rows[number] for number in chunk])
        task = tokens.ids(_task(prompts, chunk))
        classes, tasks, mask = module.get_language_embedding(
            torch.tensor(ids, device=device),
            torch.tensor(attention, device=device),
            torch.tensor([task], device=device),
            torch.ones(1, len(task), dtype=torch.long, device=device),
            torch.tensor([len(chunk)], device=device),
        )
        made.append(ClassesOfTask(chunk[0], (classes, tasks, mask)))
    return Classes(tuple(made))


def _task(prompts: Sequence[str], numbers: Sequence[int]) -> str:
    return f"Detect {', '.join(prompts[number] for number in numbers)}."


def _each(tokens: Tokens, prompts: Sequence[str], longest: int) -> list[list[int]]:
    rows = [tokens.ids(prompt) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) > longest:
            raise _too_long(prompt, len(row), longest)
    return rows


def _too_long(prompt: str, size: int, longest: int) -> Unusable:
    return Unusable(
        "prompt_too_long",
        f"the prompt {prompt[:60]!r} has {size} tokens with its marks, and the model reads {longest} at once: give a shorter one",
    )
