"""The tokenizer of a folder, by the `tokenizers` library alone: a document or lists of words, never a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tokenizers
from transformers import BertTokenizer, CLIPTokenizer

from models_store.errors import Unusable
from models_store.open_vocabulary.families import Family

# The keys by which Grounding DINO's own code finds where a phrase ends: [CLS], [SEP], period, question mark.
PHRASE_ENDS = (101, 102, 1012, 1029)
PERIOD = 1012
WHOLE, VOCABULARY, MERGES, WORDS = "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"


@dataclass(frozen=True, eq=False)
class Tokens:
    """`first`, `last`: the ids around every text; `unknown`: the id of what is in no vocabulary, where there is one."""

    document: str
    tokenizer: tokenizers.Tokenizer
    first: int
    last: int
    unknown: int | None

    def ids(self, text: str) -> list[int]:
        """With the first and the last id.

        Raises Unusable ``bad_prompt`` for a text without a known word, or with one that marks an end.
        """
        found = list(self.tokenizer.encode(text).ids)
        inner = found[1:-1]
        if (
            len(found) < 2
            or (found[0], found[-1]) != (self.first, self.last)
            or {self.first, self.last} & set(inner)
        ):
            raise Unusable(
                "bad_prompt",
                f"the prompt {text[:60]!r} holds a mark that the tokenizer keeps for itself: leave it out",
            )
        if not inner or all(id == self.unknown for id in inner):
            raise Unusable(
                "bad_prompt",
                f"the checkpoint's tokenizer knows no word of the prompt {text[:60]!r}: write it in the language that the "
                "model was trained on",
            )
        return found


def tokens_in(files: Mapping[str, bytes], family: Family) -> Tokens:
    """The tokenizer of a folder's files by name. Raises Unusable ``no_tokenizer``, ``bad_tokenizer``."""
    try:
        if WHOLE in files:
            document = files[WHOLE].decode()
        elif family.rule != "phrases" and {VOCABULARY, MERGES} <= set(files):
            document = _clip(files[VOCABULARY], files[MERGES])
        elif family.rule == "phrases" and WORDS in files:
            document = _bert(files[WORDS])
        else:
            instead = WORDS if family.rule == "phrases" else f"{VOCABULARY} with {MERGES}"
            raise Unusable(
                "no_tokenizer",
                f"the folder of {family.title} has no {WHOLE} (nor {instead}), so no word can be asked of it: save the whole "
                "processor beside the model, processor.save_pretrained(folder), and send the folder again",
            )
    except (ValueError, TypeError, KeyError) as error:
        raise _bad(f"its files cannot be read ({str(error)[:200]})") from None
    return opened(document, family)


def opened(document: str, family: Family) -> Tokens:
    """From the JSON document of `tokenizers`. Raises Unusable ``bad_tokenizer`` where the model could not use it."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(document)
    # the library raises plain Exception
    except Exception as error:
        raise _bad(f"{WHOLE} cannot be read ({str(error)[:200]})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = list(tokenizer.encode(".?").ids)
    if family.rule == "phrases":
        if ids != [PHRASE_ENDS[0], PERIOD, PHRASE_ENDS[3], PHRASE_ENDS[1]]:
            raise _bad(
                f"it gives {ids[:8]} for '.?', but {family.title} finds the ends of phrases by the ids {list(PHRASE_ENDS)} of "
                "BERT's uncased vocabulary"
            )
    elif len(ids) < 3 or ids[-1] != max(tokenizer.get_vocab().values()) or ids[0] in (0, ids[-1]):
        raise _bad(
            f"it gives {ids[:8]} for '.?', but {family.title} needs a mark before and one behind each text, and finds the end by "
            "the largest id, as CLIP's vocabulary has it"
        )
    unknown = "[UNK]" if family.rule == "phrases" else None
    return Tokens(
        document, tokenizer, ids[0], ids[-1], tokenizer.token_to_id(unknown) if unknown is not None else None
    )


def padded(rows: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """(ids, attention) of equal length: 0 behind, where nothing attends."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    return ids, [[1] * len(row) + [0] * (longest - len(row)) for row in rows]


def _clip(vocabulary: bytes, merges: bytes) -> str:
    lines = [line for line in merges.decode().splitlines() if line and not line.startswith("#version")]
    pairs = [tuple(line.split(" ")) for line in lines]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{MERGES} has a line without two parts")
    words = json.loads(vocabulary)
    return CLIPTokenizer(vocab=_numbered(words, VOCABULARY), merges=pairs).backend_tokenizer.to_str()


def _bert(words: bytes) -> str:
    numbered = {word: number for number, word in enumerate(words.decode().splitlines())}
    return BertTokenizer(vocab=numbered).backend_tokenizer.to_str()


def _numbered(words: object, name: str) -> dict[str, int]:
    if not isinstance(words, dict) or not all(isinstance(number, int) for number in words.values()):
        raise ValueError(f"{name} is no table of words and numbers")
    return words


def _bad(why: str) -> Unusable:
    return Unusable(
        "bad_tokenizer",
        f"the tokenizer does not fit the model: {why}; send the folder with the tokenizer that it was trained with",
    )
