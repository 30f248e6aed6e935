"""Sets that look read and are not: boxes of pictures that were not sent, four numbers in another order, tables of other things.

Every case was once `ready` with an empty or a misleading report.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from hand_made import CLASSES, SCENE, coco_content, picture, scene, text
from test_yolo_kinds import TRUTH, _found

from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest

BOXES = {tuple(box) for _, *box in TRUTH}
OTHER = ("cat", 1, 2, 25, 27)  # on every picture of the second camera, none of which was sent


def _read(folder: Path) -> Ingested:
    return ingest(folder / "in", folder / "out")


def _boxes(folder: Path) -> set[tuple]:
    return {tuple(box) for _, *box in _found(folder / "out")}


def _rows(pattern: str, boxes: list[tuple], name: str = "a") -> str:
    width, height = SCENE[name][1:3]
    return "".join(
        pattern.format(c=c, n=name, x1=x1, y1=y1, x2=x2, y2=y2, w=x2 - x1, h=y2 - y1, W=width, H=height)
        + "\n"
        for c, x1, y1, x2, y2 in boxes
    )


def _kitti(folder: Path, name: str, boxes: list[tuple]) -> None:
    text(folder / f"{name}.txt", _rows("{c} 0 0 0 {x1} {y1} {x2} {y2} 0 0 0 0 0 0 0", boxes))


def _voc(folder: Path, name: str, boxes: list[tuple]) -> None:
    row = "<object><name>{c}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
    counted_from_1 = [(c, x1 + 1, y1 + 1, x2, y2) for c, x1, y1, x2, y2 in boxes]
    text(folder / f"{name}.xml", f"<annotation>{_rows(row, counted_from_1)}</annotation>")


def _labelme(folder: Path, name: str, boxes: list[tuple]) -> None:
    shapes = [
        {"label": c, "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]} for c, x1, y1, x2, y2 in boxes
    ]
    text(folder / f"{name}.json", json.dumps({"shapes": shapes, "imagePath": f"{name}.png"}))


def _supervisely(folder: Path, name: str, boxes: list[tuple]) -> None:
    objects = [
        {
            "classTitle": c,
            "geometryType": "rectangle",
            "points": {"exterior": [[x1, y1], [x2, y2]], "interior": []},
        }
        for c, x1, y1, x2, y2 in boxes
    ]
    content = {"size": {"height": SCENE[name][2], "width": SCENE[name][1]}, "objects": objects}
    text(folder / f"{name}.png.json", json.dumps(content))


@pytest.mark.parametrize("write", [_kitti, _voc, _labelme, _supervisely])
def test_label_files_of_pictures_that_were_not_sent_go_to_no_namesake(
    write: Callable[[Path, str, list[tuple]], None], tmp_path: Path
) -> None:
    scene(tmp_path / "in", lambda split, name: f"cam1/{name}.png")
    for name, (*_, boxes) in SCENE.items():
        write(tmp_path / "in/cam1", name, boxes)
        write(tmp_path / "in/cam2", name, [OTHER])
    report = _read(tmp_path).report
    assert _boxes(tmp_path) == BOXES
    assert (sum(report["counts"].values()), report["annotations_dropped"]) == (2, 2)
    assert "belongs to" in report["faults"][0]["reason"]


@pytest.mark.parametrize("root", ["", "/home/me/data/", "C:\\data\\"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("kind", ["csv", "cvat"])
def test_names_of_pictures_that_were_not_sent_go_to_no_namesake(
    kind: str, first: int, root: str, tmp_path: Path
) -> None:
    scene(tmp_path / "in", lambda split, name: f"cam1/{name}.png")
    rows = [(f"{root}cam1/{name}.png", boxes) for name, (*_, boxes) in SCENE.items()]
    rows[2 * first : 2 * first] = [(f"{root}cam2/{name}.png", [OTHER]) for name in SCENE]
    if kind == "csv":
        lines = [_rows(path + ",{x1},{y1},{x2},{y2},{c}", boxes) for path, boxes in rows]
        text(tmp_path / "in/boxes.csv", "image,xmin,ymin,xmax,ymax,label\n" + "".join(lines))
    else:
        row = '<box label="{c}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>'
        images = [f'<image name="{path}">{_rows(row, boxes)}</image>' for path, boxes in rows]
        text(tmp_path / "in/annotations.xml", f"<annotations>{''.join(images)}</annotations>")
    report = _read(tmp_path).report
    assert _boxes(tmp_path) == BOXES
    assert (report["counts"], report["annotations_dropped"]) == ({"missing_image": 2}, 2)


def test_two_names_that_agree_as_little_with_a_path_have_no_picture(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    lines = [f"cam{n}/a.png,1,2,25,27,cat" for n in (1, 2)] + ["b.png,1,2,17,34,dog"]
    text(tmp_path / "in/boxes.csv", "\n".join(["image,xmin,ymin,xmax,ymax,label", *lines]))
    assert _read(tmp_path).report["counts"] == {"missing_image": 2, "unlisted_image": 1}
    assert _boxes(tmp_path) == {("dog", 1, 2, 17, 34)}


def test_an_id_is_the_number_that_a_picture_is_called(tmp_path: Path) -> None:
    picture(tmp_path / "in/000007.png", 40, 30)
    text(tmp_path / "in/boxes.csv", "image_id,xmin,ymin,xmax,ymax,label\n7,4,6,20,26,cat\n")
    assert _read(tmp_path).report["counts"] == {}


# Six boxes, of which four lie outside when they are read in the usual order.
MANY = [
    ("cat", 2, 3, 12, 13),
    ("cat", 20, 15, 30, 25),
    ("dog", 26, 14, 38, 28),
    ("dog", 24, 18, 34, 29),
    ("cat", 22, 17, 36, 27),
    ("dog", 3, 12, 20, 29),
]


@pytest.mark.parametrize("order", ["x1 y1 x2 y2", "x1 y1 w h", "cx cy w h"])
def test_fractions_in_another_order_are_read_so_and_said(order: str, tmp_path: Path) -> None:
    picture(tmp_path / "in/images/a.png", 40, 30)
    lines = []
    for c, x1, y1, x2, y2 in MANY:
        sides = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "w": x2 - x1, "h": y2 - y1}
        sides |= {"cx": (x1 + x2) / 2, "cy": (y1 + y2) / 2}
        fractions = [
            str(sides[word] / (30 if word[0] in "yh" or word == "cy" else 40)) for word in order.split()
        ]
        lines.append(" ".join([str(CLASSES.index(c)), *fractions]))
    text(tmp_path / "in/labels/a.txt", "\n".join(lines))
    text(tmp_path / "in/classes.txt", "cat\ndog\n")
    report = _read(tmp_path).report
    assert _boxes(tmp_path) == set(MANY)
    assert report["counts"] == ({} if order == "cx cy w h" else {"box_order": 1})


@pytest.mark.parametrize("declared", [{}, {"width": None, "height": None}, {"width": 0, "height": 0}])
@pytest.mark.parametrize("corners", [True, False])
def test_corners_in_coco_are_read_so_and_said(corners: bool, declared: dict, tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 40, 30)
    content = coco_content(["a"]) | {"annotations": []}
    content["images"][0].update(declared)  # else the file's own size tells
    for identity, (c, x1, y1, x2, y2) in enumerate(MANY, start=1):
        bbox = [x1, y1, x2, y2] if corners else [x1, y1, x2 - x1, y2 - y1]
        row = {"id": identity, "image_id": 7, "category_id": CLASSES.index(c) + 1, "bbox": bbox}
        content["annotations"].append(row)
    text(tmp_path / "in/all.json", json.dumps(content))
    assert _read(tmp_path).report["counts"] == ({"box_order": 1} if corners else {})
    assert _boxes(tmp_path) == set(MANY)


def _within_images(content: dict) -> None:
    for image in content["images"]:
        image["annotations"] = [
            {key: row[key] for key in ("bbox", "category_id")}
            for row in content["annotations"]
            if row["image_id"] == image["id"]
        ]
    del content["annotations"]


def _by_id(content: dict) -> None:
    content["annotations"] = {str(row["id"]): row for row in content["annotations"]}


def _segments(content: dict) -> None:
    by_image: dict[int, list[dict]] = {}
    for row in content["annotations"]:
        by_image.setdefault(row.pop("image_id"), []).append(row)
    content["annotations"] = [
        {"image_id": identity, "file_name": "x.png", "segments_info": rows}
        for identity, rows in by_image.items()
    ]


def _texts(content: dict) -> None:
    for row in content["annotations"]:
        row["bbox"] = str(row["bbox"])


@pytest.mark.parametrize("change", [_within_images, _by_id, _segments, _texts])
def test_annotations_of_coco_wherever_they_stand(change: Callable[[dict], None], tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    change(content)
    text(tmp_path / "in/all.json", json.dumps(content))
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path) == BOXES


def test_annotations_of_coco_under_another_key_are_asked_about(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    content["labels"] = content.pop("annotations")
    text(tmp_path / "in/all.json", json.dumps(content))
    with pytest.raises(Unusable, match="no list 'annotations', and 'labels' might be it"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ("Caf\N{LATIN SMALL LETTER E WITH ACUTE}", {}),
        (" Cafe\u0301\u200b ", {}),
        ("caf\u00e9", {"similar_classes": 1}),
    ],
)
def test_names_that_look_alike(other: str, counts: dict, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    rows = ["a.png,4,6,20,26,Caf\u00e9", f"b.png,1,2,17,34,{other}"]
    text(tmp_path / "in/boxes.csv", "\n".join(["image,xmin,ymin,xmax,ymax,label", *rows]))
    result = _read(tmp_path)
    assert result.report["counts"] == counts
    assert len({category for category, *_ in _boxes(tmp_path)}) == 1 + len(counts)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("image,x,y,label", "{n}.png,{x1},{y1},{c}"),
        ("image,label,polygon", '{n}.png,{c},"[[{x1}, {y1}], [{x2}, {y1}], [{x2}, {y2}]]"'),
        ("image_id,class,segmentation", "{n},{c},31 5 61 5 91 5"),
        ("image;where;label", "{n}.png;[{x1},0; {y1},5; {w},0; {h},0];{c}"),
        ("image,type,xmin,ymin,xmax,ymax,breed", "{n}.png,animal,{x1},{y1},{x2},{y2},{c}"),
    ],
)
def test_tables_of_points_polygons_and_run_lengths_are_no_labels_of_pictures(
    header: str, row: str, tmp_path: Path
) -> None:
    scene(tmp_path / "in")
    lines = [_rows(row, boxes, name) for name, (*_, boxes) in SCENE.items()]
    text(tmp_path / "in/labels.csv", "".join([header + "\n", *lines]))
    with pytest.raises(Unusable, match=r"labels\.csv"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("file", "header", "row"),
    [
        ("t.csv", "filename,width,height,class,x,y,w,h", "{n}.png,{W},{H},{c},{x1},{y1},{w},{h}"),
        ("t.csv", "filename,xmin,ymin,w,h,width,height,class", "{n}.png,{x1},{y1},{w},{h},{W},{H},{c}"),
        ("t.csv", "", "{n}.png;{x1},0;{y1},0;{x2},0;{y2},0;{c}"),
        ("t.txt", "image\tx1\ty1\tx2\ty2\tlabel", "{n}.png\t{x1}\t{y1}\t{x2}\t{y2}\t{c}"),
        ("t.txt", "image,x1,y1,x2,y2,label", "{n}.png,{x1},{y1},{x2},{y2},{c}"),
        ("t.txt", "", "{n}.png {x1} {y1} {x2} {y2} {c}"),
        ("t.csv", "image, bbox, label", '{n}.png, "{x1}, {y1}, {x2}, {y2}", {c}'),
    ],
)
def test_tables_that_were_misread_or_refused(file: str, header: str, row: str, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    lines = [_rows(row, boxes, name) for name, (*_, boxes) in SCENE.items()]
    text(tmp_path / "in" / file, "".join([header + "\n" if header else "", *lines]))
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path) == BOXES


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("output.manifest", '{"source-ref": "s3://bucket/a.png", "boxes": {"annotations": [{"left": 4}]}}\n'),
        ("images/a.ann", "cat 4 6 20 26\n"),
        ("labels", "a.png 4 6 20 26\n"),
    ],
)
def test_labels_of_unknown_suffixes_are_labels(file: str, content: str, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in" / file, content)
    with pytest.raises(Unusable, match="look like labels were not read"):
        _read(tmp_path)


def test_what_other_programs_lay_beside_pictures_is_no_label(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/images/a.xmp", "<x:xmpmeta><rdf:li>1 2 3 4 5</rdf:li></x:xmpmeta>")
    (tmp_path / "in/images/a.thm").write_bytes(b"\xff\xd8\x00 1 2 3 4 5 6\n")
    assert _read(tmp_path).supervision == "none"


def test_a_picture_inside_its_labelme_file(tmp_path: Path) -> None:
    for name, (*_, boxes) in SCENE.items():
        _labelme(tmp_path / "in", name, boxes)
        file = picture(tmp_path / "drawn.png", *SCENE[name][1:3], seed=ord(name))
        content = json.loads((tmp_path / f"in/{name}.json").read_text())
        content["imageData"] = base64.b64encode(file.read_bytes()).decode()
        text(tmp_path / f"in/{name}.json", json.dumps(content))
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path) == BOXES


def test_polygons_of_one_group_are_one_object(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    for name, (*_, boxes) in SCENE.items():
        shapes = [
            {"label": c, "group_id": group, "shape_type": "polygon", "points": part}
            for group, (c, x1, y1, x2, y2) in enumerate(boxes)
            for part in ([[x1, y1], [x2, y1], [x2, y1 + 2]], [[x1, y2 - 2], [x2, y2], [x1, y2]])
        ]
        text(tmp_path / f"in/images/{name}.json", json.dumps({"shapes": shapes, "imagePath": f"{name}.png"}))
    assert _read(tmp_path).supervision == "masks"
    assert _boxes(tmp_path) == BOXES


def test_xml_of_the_labelme_website(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    row = (
        "<object><name>{c}</name><deleted>0</deleted><polygon><pt><x>{x1}</x><y>{y1}</y></pt><pt><x>{x2}</x><y>{y1}</y></pt>"
        "<pt><x>{x2}</x><y>{y2}</y></pt></polygon></object>"
    )
    for name, (*_, boxes) in SCENE.items():
        deleted = _rows(row.replace("<deleted>0", "<deleted>1"), [OTHER])
        text(tmp_path / f"in/{name}.xml", f"<annotation>{_rows(row, boxes)}{deleted}</annotation>")
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path) == BOXES


def test_boxes_that_fit_only_the_picture_before_it_was_turned(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "in/a.jpg", 40, 30, exif=exif)
    text(tmp_path / "in/t.csv", "image,xmin,ymin,xmax,ymax,label\na.jpg,4,6,20,26,cat\na.jpg,8,2,38,12,dog\n")
    assert _read(tmp_path).report["counts"] == {"exif_rotation": 1}
    assert _boxes(tmp_path) == {("cat", 4, 4, 24, 20), ("dog", 18, 8, 28, 38)}


def test_a_line_that_names_the_columns_of_yolo(tmp_path: Path) -> None:
    picture(tmp_path / "in/images/a.jfif", 40, 30, format="JPEG")
    text(tmp_path / "in/labels/a.txt", "class x_center y_center width height\n0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "in/classes.txt", "cat\n")
    assert _read(tmp_path).report["counts"] == {}
    assert len(_boxes(tmp_path)) == 1


def test_dota_with_commas(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    for name, (*_, boxes) in SCENE.items():
        row = "{x1},{y1},{x2},{y1},{x2},{y2},{x1},{y2},{c},0"
        text(tmp_path / f"in/labelTxt/{name}.txt", _rows(row, boxes))
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path) == BOXES


@pytest.mark.parametrize(("side", "counts"), [("20,0", {}), ("1,020", {"invalid_annotation": 1})])
def test_decimal_commas_of_voc_are_no_thousands(side: str, counts: dict, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    for name, (*_, boxes) in SCENE.items():
        _voc(tmp_path / "in/images", name, boxes)
    file = tmp_path / "in/images/a.xml"
    text(file, file.read_text().replace("<xmax>20<", f"<xmax>{side}<"))
    assert _read(tmp_path).report["counts"] == counts
    assert len(_boxes(tmp_path)) == 3 - len(counts)


def test_numbers_beside_labels_are_asked_about_and_the_answer_counts(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/t.csv", "filename,label,a,b,c,d\na.png,cat,1.5,3,30,4\nb.png,dog,2.5,3,20,5\n")
    with pytest.raises(Unusable, match="give format=image_labels"):
        _read(tmp_path)
    assert ingest(tmp_path / "in", tmp_path / "out", format="image_labels").summary["annotations"] == 2
