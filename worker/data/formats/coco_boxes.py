"""The box of a COCO annotation: what its four numbers are, in whatever shape tools write them."""

from collections.abc import Sequence

from worker.data.faults import Report
from worker.data.formats import box_order
from worker.data.formats.box_cells import NUMBER, PLAIN
from worker.data.formats.box_order import Reading, Sized
from worker.data.formats.json_files import mapping, parsed
from worker.data.formats.raw import Corners, numbers
from worker.data.run_lengths import box_of, run_lengths


def four(row: dict) -> list[float] | None:
    """The four numbers of `bbox`: a list, the text of one, or an object of x, y, width, height."""
    given = row.get("bbox")
    if isinstance(given, str):
        content = parsed(given)
        given = NUMBER.findall(given) if content is None and PLAIN.fullmatch(given) else content
    if isinstance(given, dict):
        given = [given.get(key) for key in ("x", "y", "width", "height")]
    return numbers(given) if isinstance(given, list) and len(given) == 4 else None


def meaning(boxes: Sequence[Sized], file: str, report: Report) -> tuple[Reading, bool]:
    """(what the four numbers of `bbox` are, whether they are fractions).

    They are COCO's, unless those put many boxes outside the pictures and corners none; fractions where no number is above 2,
    as Azure writes them. Either is said.
    """
    fractions = box_order.are_fractions(boxes) and any(0 < side < 1 for box, _ in boxes for side in box)
    if fractions:
        report.add(
            "box_order",
            file,
            "no number of any bbox is above 2: read as fractions of the pictures, not pixels",
        )
    if box_order.corners not in box_order.meant(box_order.corner_and_size, boxes, fractions=fractions):
        return box_order.corner_and_size, fractions
    reason = f"many boxes lie outside the pictures as COCO's x, y, width, height and none as {box_order.NAMES[box_order.corners]}"
    report.add("box_order", file, f"{reason}: read so")
    return box_order.corners, fractions


def segmentation_of(row: dict) -> list[list[float]] | dict | None:
    """Polygons of at least three points, or run lengths; None for anything else."""
    value = row.get("segmentation")
    if isinstance(value, dict):
        size, counts = value.get("size"), value.get("counts")
        if isinstance(size, list) and len(size) == 2 and numbers(size) and isinstance(counts, str | list):
            return {"size": [int(side) for side in size], "counts": counts}
        return None
    if not isinstance(value, list) or not value:
        return None
    polygons = [numbers(polygon) if isinstance(polygon, list) else None for polygon in value]
    whole = [polygon for polygon in polygons if polygon and len(polygon) >= 6 and len(polygon) % 2 == 0]
    return whole if len(whole) == len(value) else None


def corners_of(row: dict, segmentation: list | dict | None, reading: Reading) -> Corners | None:
    """The corners by `bbox`, else around the segmentation; None where neither can be read."""
    if box := four(row):
        return reading(box)
    given = row.get("bbox")
    if given in (None, []) and isinstance(segmentation, list):
        xs = [x for polygon in segmentation for x in polygon[0::2]]
        ys = [y for polygon in segmentation for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    if given in (None, []) and isinstance(segmentation, dict):
        height, width = segmentation["size"]
        try:
            return box_of(run_lengths(segmentation["counts"], height * width), height)
        except ValueError:
            return None
    return None


def angle_of(row: dict) -> float:
    """The degrees by which CVAT turned a box about its centre (`attributes.rotation`); 0 for one that is upright.

    CVAT writes `bbox` as it was before the turn. A segmentation has its own corners.
    """
    degrees = numbers([mapping(row.get("attributes")).get("rotation", 0)])
    return degrees[0] % 360 if degrees and not row.get("segmentation") else 0.0
