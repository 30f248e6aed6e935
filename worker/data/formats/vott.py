"""Microsoft's VoTT 2: an export of all `assets`, or one `*-asset.json` a picture; regions with tags."""

from typing import Any

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, around, flat, xywh
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Corners, Raw, category_name, numbers, pixel_size
from worker.data.tree import Tree

NAME = "vott"
TITLE = "VoTT JSON (export of all assets, or *-asset.json)"
_KEYS = ("asset", "regions", "boundingBox")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS)
    return f"VoTT JSON, such as {file}" if file else None


def _assets(content: dict[str, Any]) -> list[dict[str, Any]]:
    found = content.get("assets")
    return rows([*found.values()]) if isinstance(found, dict) else [content] if "asset" in content else []


def _shape(region: dict[str, Any]) -> tuple[Corners | None, list[list[float]] | None]:
    """The corners of `boundingBox`, else around the points; the points are a polygon unless the region is a rectangle."""
    pairs = [numbers((point.get("x"), point.get("y"))) for point in rows(region.get("points"))]
    points = [pair for pair in pairs if pair]
    given = mapping(region.get("boundingBox"))
    corners = xywh(numbers(given.get(side) for side in ("left", "top", "width", "height")))
    polygon = flat(points) if region.get("type") == "POLYGON" and len(points) == len(pairs) else None
    return corners or around(points), polygon


def read(tree: Tree, report: Report) -> Raw:
    """Read the regions of every asset in pixels from 0; of several tags of one region the first is the class, said so."""
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS):
        content = mapping(content_of(tree, file, report))
        collected.used.add(file)
        collected.name_all(category_name(tag.get("name")) for tag in rows(content.get("tags")))
        several = 0
        for entry in _assets(content):
            asset, regions = mapping(entry.get("asset")), rows(entry.get("regions"))
            size = mapping(asset.get("size"))
            image = collected.named(
                asset.get("name") or asset.get("path"),
                file,
                declared=pixel_size(size.get("width"), size.get("height")),
                lost=len(regions),
            )
            if image is None:
                continue
            for place, region in enumerate(regions, start=1):
                tags = region.get("tags")
                tags = tags if isinstance(tags, list) else []
                several += len(tags) > 1
                corners, polygon = _shape(region)
                reference = f"{asset.get('name')}, region {place}"
                wanted = "finite numbers left, top, width, height are wanted"
                category = tags[0] if tags else None
                collected.box(image, category, corners, file, reference, segmentation=polygon, wanted=wanted)
        if several:
            reason = f"{several} regions have several tags: the first is the class, the others are not read"
            report.add("extra_columns", file, reason, lost=0)
    return collected.raw()
