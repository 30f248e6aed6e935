"""The formats that ingestion reads. Each module has NAME, TITLE, recognise(tree) -> evidence | None, read(tree, report) -> Raw."""

from types import ModuleType

from worker.data.formats import coco, image_labels, mnist, unlabelled, voc, wheat, yolo

READERS: dict[str, ModuleType] = {
    module.NAME: module for module in (coco, voc, yolo, wheat, mnist, image_labels, unlabelled)
}
# Annotations of boxes go before labels of pictures, and those before bare pictures.
RANKS: tuple[tuple[str, ...], ...] = (
    ("coco", "voc", "yolo", "csv", "mnist"),
    ("image_labels",),
    ("unlabelled",),
)
ALIASES = {
    "roboflow": "coco",
    "pascal_voc": "voc",
    "ultralytics": "yolo",
    "global_wheat": "csv",
    "wheat": "csv",
    "mnist_txt": "mnist",
}
