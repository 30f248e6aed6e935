"""The categories of a COCO file: {id: name}, as the annotations of the file use them."""

from collections import defaultdict
from collections.abc import Sequence

from worker.data.faults import Report, Unusable
from worker.data.formats.raw import category_name


def identity_of(value: object) -> str | None:
    """What an id is compared by: 1, 1.0, "1" and "000001" are one."""
    if type(value) is int:
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        return None
    text = str(value).strip()
    number = text.removesuffix(".0")
    return str(int(number)) if number.isascii() and number.isdigit() else text


def names_of(
    categories: Sequence[dict], annotations: Sequence[dict], file: str, report: Report
) -> dict[str, str]:
    """{id: name} in the order of the ids. Raises Unusable where an id that is used has two names."""
    rows = [(identity, row) for row in categories if (identity := identity_of(row.get("id"))) is not None]
    rows.sort(key=lambda item: (not item[0].isdigit(), int(item[0]) if item[0].isdigit() else 0, item[0]))
    used = {identity for row in annotations if (identity := identity_of(row.get("category_id"))) is not None}
    _refuse_repeated(rows, used, file, report)
    names = {}
    for identity, row in rows:
        names[identity] = category_name(row.get("name")) or f"category {identity}"
        if not category_name(row.get("name")) and identity in used:
            report.add(
                "unnamed_classes", file, f"category {identity} has no name: called '{names[identity]}'"
            )
    if _count_from_zero(names, used):
        reason = f"the annotations count the {len(names)} categories from 0, the list of categories from 1"
        report.add("renumbered_classes", file, f"{reason}: 0 is '{names['1']}'")
        return {str(int(identity) - 1): name for identity, name in names.items()}
    # Roboflow puts a group above the real categories and lists it as the first of them.
    above = {
        category_name(row.get("supercategory"))
        for _, row in rows
        if row.get("supercategory") != row.get("name")
    }
    for identity in [identity for identity in names if names[identity] in above and identity not in used]:
        report.add("unused_category", file, f"'{names.pop(identity)}' only groups the other categories")
    return names


def _refuse_repeated(rows: Sequence[tuple[str, dict]], used: set[str], file: str, report: Report) -> None:
    called: dict[str, dict[str, None]] = defaultdict(dict)
    for identity, row in rows:
        called[identity][category_name(row.get("name"))] = None
    for identity, names in called.items():
        if len(names) > 1 and identity in used:
            listed = " and ".join(map(repr, names))
            raise Unusable(
                f"{file}: the categories {listed} have the same id, {identity}: give each an id of its own.",
                report.to_json(),
            )


def _count_from_zero(names: dict[str, str], used: set[str]) -> bool:
    """Whether the ids are 1 ... n and those of the annotations 0 ... n - 1, first and last of which occur."""
    last = str(len(names))
    return (
        "0" in used
        and last not in used
        and str(len(names) - 1) in used
        and set(names) == {str(number) for number in range(1, len(names) + 1)}
        and used <= {str(number) for number in range(len(names))}
    )
