"""What the teacher `words` is asked for: the prompts of each class, held against the checkpoint and the dataset."""

from collections.abc import Mapping, Sequence

from app.db.tables import Checkpoint, Dataset
from app.errors import Fault, refuse
from app.schemas.pseudo_labellings import PseudoLabellingCreate
from app.services.checkpoints import OPEN_VOCABULARY

# whose prompts are phrases of one text, each with a period at its end
PHRASES = ("transformers/grounding_dino", "transformers/mm_grounding_dino")
MARKS = 2  # tokens around every text
_SHOWN = 10


def asked_words(
    asked: PseudoLabellingCreate, checkpoint: Checkpoint, dataset: Dataset
) -> tuple[dict[str, list[str]], list[str]]:
    """({category: prompts, none where its name is to be asked}, categories of the new dataset).

    Raises InvalidRequest naming each field at fault. What only the tokenizer knows, the worker finds.
    """
    refuse(_unfit(asked, checkpoint, dataset))
    own = [each["name"] for each in (dataset.summary or {}).get("categories") or []]
    if asked.words is None:
        words: dict[str, list[str]] = {name: [] for name in own}
    else:
        words = {name: list(dict.fromkeys(prompts)) for name, prompts in asked.words.items()}
    if not words:
        message = (
            "words is empty: leave it out to ask for every class of the dataset"
            if own
            else f'the dataset {dataset.id} names no class: say in words what to look for, such as {{"cat": ["a cat"], "dog": []}}'
        )
        refuse([{"pointer": "/words", "message": message}])
    faults = _unknown(words, own) + _unreadable(words, checkpoint) + _shared(words)
    refuse(faults)
    return words, own or list(words)


def _unfit(asked: PseudoLabellingCreate, checkpoint: Checkpoint, dataset: Dataset) -> list[Fault]:
    if checkpoint.kind != OPEN_VOCABULARY:
        message = (
            f"{checkpoint.name} ({checkpoint.id}) is {checkpoint.kind} {checkpoint.architecture}, which no word can be asked of: "
            "give a Grounding DINO, MM-Grounding-DINO, OWL-ViT, OWLv2 or OmDet-Turbo, or let it teach as detector"
        )
        return [{"pointer": "/words_checkpoint", "message": message}]
    faults: list[Fault] = []
    fixed = ((checkpoint.manifest or {}).get("input") or {}).get("fixed_size")
    if asked.image_size is not None and fixed:
        message = f"{checkpoint.architecture} looks at pictures of {fixed[0]} x {fixed[1]} alone: leave image_size out"
        faults.append({"pointer": "/image_size", "message": message})
    if asked.text_threshold is not None and checkpoint.architecture not in PHRASES:
        message = f"{checkpoint.architecture} gives one score for a box and its prompt: leave text_threshold out, confidence is that score's"
        faults.append({"pointer": "/text_threshold", "message": message})
    if asked.all_classes and dataset.supervision != "image_labels":
        message = f"all_classes is about image labels, and {dataset.id} has none: leave it out"
        faults.append({"pointer": "/all_classes", "message": message})
    return faults


def _unknown(words: Mapping[str, Sequence[str]], own: Sequence[str]) -> list[Fault]:
    return [
        {
            "pointer": _at(name),
            "message": f"the dataset has no category {name!r}, it has {', '.join(own[:_SHOWN])}",
        }
        for name in words
        if own and name not in own
    ]


def _unreadable(words: Mapping[str, Sequence[str]], checkpoint: Checkpoint) -> list[Fault]:
    """Prompts that the family cannot read, as far as one sees without its tokenizer."""
    phrases = checkpoint.architecture in PHRASES
    longest = ((checkpoint.manifest or {}).get("options") or {}).get("longest_text")
    faults: list[Fault] = []
    for name, prompts in words.items():
        # a class's name is a prompt too
        for place, prompt in enumerate(prompts or [name]):
            pointer = f"{_at(name)}/{place}" if prompts else _at(name)
            plain = plain_prompt(prompt)
            if not any(character.isalnum() for character in plain):
                message = f"the prompt {prompt!r} has no word: say what is to be seen"
            elif phrases and ("." in plain or "?" in plain):
                message = (
                    f"the prompt {prompt!r} has a period or question mark within, where a phrase of Grounding DINO ends: leave it "
                    "out, or make two prompts of it"
                )
            elif longest and len(plain.split()) > longest - MARKS:
                message = (
                    f"the prompt {prompt[:60]!r} has {len(plain.split())} words, and the model reads {longest - MARKS} tokens at "
                    "once: give a shorter one"
                )
            else:
                continue
            faults.append({"pointer": pointer, "message": message})
    return faults


def _shared(words: Mapping[str, Sequence[str]]) -> list[Fault]:
    whose: dict[str, str] = {}
    faults: list[Fault] = []
    for name, prompts in words.items():
        for prompt in prompts or [name]:
            other = whose.setdefault(plain_prompt(prompt), name)
            if other != name:
                message = f"the prompt {prompt!r} is of {other} and of {name}: a box cannot be of both; give each its own words"
                faults.append({"pointer": _at(name), "message": message})
    return faults


def _at(name: str) -> str:
    """The class's place in the request, as RFC 6901 writes it."""
    return "/words/" + name.replace("~", "~0").replace("/", "~1")


def plain_prompt(prompt: str) -> str:
    """As phrases are read: in lower case, one space between words, no period at the end."""
    return " ".join(prompt.lower().replace("_", " ").split()).rstrip(". ")
