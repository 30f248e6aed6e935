"""The formats that ingestion reads. Each module has NAME, TITLE, recognise(tree) -> evidence | None, read(tree, report) -> Raw."""

from types import ModuleType

from worker.data.formats import (
    automl,
    azure,
    bdd100k,
    box_tables,
    coco,
    createml,
    cvat,
    datumaro,
    dota,
    ground_truth,
    hf_imagefolder,
    hf_parquet,
    image_labels,
    keras_yolo,
    kitti,
    label_studio,
    labelme,
    lvis,
    mnist,
    oidv4,
    open_images,
    supervisely,
    tfrecord,
    unclear_tables,
    unlabelled,
    via,
    visdrone,
    voc,
    vott,
    widerface,
    yolo,
)

_BOXED: tuple[ModuleType, ...] = (
    coco,
    voc,
    yolo,
    box_tables,
    automl,
    open_images,
    mnist,
    labelme,
    via,
    cvat,
    label_studio,
    supervisely,
    datumaro,
    createml,
    lvis,
    bdd100k,
    hf_imagefolder,
    kitti,
    visdrone,
    dota,
    keras_yolo,
    oidv4,
    widerface,
    ground_truth,
    azure,
    vott,
)
READERS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (*_BOXED, hf_parquet, tfrecord, unclear_tables, image_labels, unlabelled)
}
# Annotations of boxes go before tables that might hold some, those before labels of pictures, and those before bare pictures.
RANKS: tuple[tuple[str, ...], ...] = (
    tuple(module.NAME for module in _BOXED),
    ("parquet", "tfrecord"),
    ("unclear_table",),
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
