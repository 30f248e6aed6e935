"""Classes that are numbers, and the files beside them that may name them."""

import re
from collections.abc import Sequence

from worker.data.faults import Report
from worker.data.formats import tables
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import parsed
from worker.data.formats.raw import category_name, head_of, numbers, text_of
from worker.data.formats.yolo_description import descriptions, names_files, names_in
from worker.data.tree import Tree, parent

_LARGEST = 1 << 16  # bytes of a JSON that names classes
_ITEM = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"(id|name|display_name)\s*:\s*(?:\"([^\"]*)\"|'([^']*)'|(\d+))")


def _of_label_map(text: str) -> dict[int, str]:
    """A TensorFlow label map: item { id: 1 name: 'cat' }."""
    found: dict[int, str] = {}
    for item in _ITEM.findall(text):
        fields = {key: double or single or number for key, double, single, number in _FIELD.findall(item)}
        if fields.get("id", "").isdigit():
            found[int(fields["id"])] = category_name(fields.get("display_name") or fields.get("name"))
    return found


def _of_table(tree: Tree, file: str) -> dict[int, str]:
    """Two columns, a class and its number, as keras-retinanet's classes.csv has them."""
    table = tables.sample(tree, file)
    if table is None or len(table.columns) != 2 or not table.rows:
        return {}
    for number, name in ((1, 0), (0, 1)):
        found = numbers(row[number] for _, row in table.rows)
        words = [row[name] for _, row in table.rows]
        counted = bool(found) and all(value == int(value) for value in found or ())
        if found and counted and len(set(found)) == len(found) and numbers(words) is None:
            return {int(value): category_name(word) for value, word in zip(found, words, strict=True)}
    return {}


def _of_json(tree: Tree, file: str) -> list[str]:
    """A list of words, {"0": "cat"} or {"cat": 0}, and nothing else."""
    content = parsed(head_of(tree, file, _LARGEST))
    if isinstance(content, dict):
        flat = all(isinstance(value, str | int) for value in content.values())
        content = {key: str(value) for key, value in content.items()}
    else:
        flat = isinstance(content, list) and all(isinstance(word, str) for word in content)
    names = names_in(content, tree, parent(file), Report()) if flat else []
    return names if all(names[1:]) else []  # numbers with gaps count something else


def _lists(tree: Tree, report: Report) -> list[tuple[str, dict[int, str]]]:
    found = [(file, _of_label_map(text_of(tree, file, report) or "")) for file in tree.with_suffix(".pbtxt")]
    found += [(file, _of_table(tree, file)) for file in tree.with_suffix(*tables.SUFFIXES)]
    found += [(each.file, dict(enumerate(each.names))) for each in names_files(tree, report)]
    found += [(each.file, dict(enumerate(each.names))) for each in descriptions(tree, set(), Report())]
    found += [(file, dict(enumerate(_of_json(tree, file)))) for file in tree.with_suffix(".json")]
    return [(file, names) for file, names in found if names]


def names_of_numbers(collected: Collected, values: Sequence[str], file: str) -> dict[str, str]:
    """{what is written: the class} for a column of classes; words are classes themselves.

    Numbers are looked up in a label map, a table of two columns or a list of names; where no file names them all they stay
    what they are, and the report says so. The file of names is used either way.
    """
    distinct = dict.fromkeys(values)
    found = numbers(distinct)
    lists = _lists(collected.tree, collected.report)
    if found is None:
        for listing, names in lists:
            if set(names.values()) >= set(distinct):
                collected.used.add(listing)
                collected.name_all(names.values())
        return {}
    for listing, names in lists:
        called = [names.get(int(value)) for value in found]
        if all(called) and all(value == int(value) for value in found):
            # One list for each split says the same.
            collected.used.update(other for other, same in lists if same == names)
            collected.name_all(names.values())
            collected.notes.append(f"{file}: the numbers of the classes are named in {listing}")
            return {written: name or "" for written, name in zip(distinct, called, strict=True)}
    for listing, names in lists:
        if names.keys() == set(range(len(names))) and (min(found), max(found)) == (1, len(names)):
            called = [names.get(int(value) - 1) if value == int(value) else None for value in found]
            collected.used.update(other for other, same in lists if same == names)
            collected.name_all(names.values())
            reason = f"{file} counts the {len(names)} classes from 1, not from 0"
            collected.report.add("renumbered_classes", listing, reason)
            return {written: name or "" for written, name in zip(distinct, called, strict=True)}
    shown = ", ".join(sorted(distinct)[:10])
    reason = f"the classes are numbers ({shown}) and no file names them: they are called by their numbers"
    collected.report.add("unnamed_classes", file, reason)
    return {}
