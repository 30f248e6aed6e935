"""Tables of boxes under any names, with a header or without, are read right or asked about, never taken as image labels."""

from pathlib import Path

import pytest
from hand_made import SCENE, picture, scene, text

from worker.data.dataset import Dataset, open_dataset
from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest

BOXES = [(name, c, *box) for name, (*_, boxes) in SCENE.items() for c, *box in boxes]


def _wanted() -> list[tuple]:
    return sorted((SCENE[name][1], c, *map(float, box)) for name, c, *box in BOXES)


def _read(folder: Path, table: str, file: str = "labels.csv", **more: str) -> tuple[Ingested, Dataset]:
    scene(folder / "in")
    text(folder / "in" / file, table)
    for name, content in more.items():
        text(folder / "in" / name, content)
    result = ingest(folder / "in", folder / "out")
    return result, open_dataset(folder / "out")


def _rows(dataset: Dataset) -> list[tuple]:
    widths = {image.id: image.width for image in dataset.images}
    columns = zip(dataset.annotation_image_ids, dataset.labels, dataset.boxes.tolist(), strict=True)
    return sorted((widths[int(image)], dataset.categories[label], *box) for image, label, box in columns)


def _assert_right(dataset: Dataset) -> None:
    assert len(_rows(dataset)) == 3
    for found, wanted in zip(_rows(dataset), _wanted(), strict=True):
        assert found[:2] == wanted[:2]
        assert found[2:] == pytest.approx(wanted[2:], abs=0.01)


def _table(header: str, row: str) -> str:
    """A table with a row for each box; {f} the file, {n} its stem, {c} the class, {x1} ... and fractions {rx1} ... of the picture."""
    lines = [header] if header else []
    for name, c, x1, y1, x2, y2 in BOXES:
        split, width, height, _ = SCENE[name]
        values = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "w": x2 - x1, "h": y2 - y1}
        values |= {"cx": (x1 + x2) / 2, "cy": (y1 + y2) / 2}
        fractions = {
            "r" + key: f"{value / (width if key in ('x1', 'x2', 'w', 'cx') else height):.6f}"
            for key, value in values.items()
        }
        numbered = {"k": int(c == "dog"), "W": width, "H": height, "s": split}
        lines.append(row.format(f=f"{name}.png", n=name, c=c, **values, **fractions, **numbered))
    return "\n".join(lines) + "\n"


KINDS = [
    ("filename,x1,y1,x2,y2,label", "{f},{x1},{y1},{x2},{y2},{c}"),
    ("image,label,x,y,width,height", "{f},{c},{x1},{y1},{w},{h}"),
    ("Image Name,X_Min,Y_Min,X_Max,Y_Max,Class Name", "{n},{x1},{y1},{x2},{y2},{c}"),
    ("FILENAME,WIDTH,HEIGHT,CLASS,XMIN,YMIN,XMAX,YMAX", "{f},{W},{H},{c},{x1},{y1},{x2},{y2}"),
    ("filename,cell_type,xmin,ymin,xmax,ymax", "{f},{c},{x1},{y1},{x2},{y2}"),
    (",img_path,bbox_x1,bbox_y1,bbox_x2,bbox_y2,class", "0,images/{f},{x1},{y1},{x2},{y2},{c}"),
    ("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height", "{c},{x1},{y1},{w},{h},{f},{W},{H}"),
    ("Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId;Kind", "{f};{W};{H};{x1};{y1};{x2};{y2};{c};{c}"),
    ("file,left,top,right,bottom,species", "{f},{x1},{y1},{x2},{y2},{c}"),
    ("file,x0,y0,x1,y1,label", "{f},{x1},{y1},{x2},{y2},{c}"),
    ("file,left,top,width,height,label", "{f},{x1},{y1},{w},{h},{c}"),
    ("image,x_center,y_center,width,height,class", "{f},{cx},{cy},{w},{h},{c}"),
    ("image,xc,yc,w,h,class", "{f},{rcx},{rcy},{rw},{rh},{c}"),
    ("path,xmin,ymin,xmax,ymax,name", "C:\\data\\{f},{rx1},{ry1},{rx2},{ry2},{c}"),
    ("image_path,label,bbox", '/home/me/{f},{c},"[{x1}, {y1}, {w}, {h}]"'),
    ("image_path,label,bbox", '{f},{c},"({x1}, {y1}, {x2}, {y2})"'),
    ("image,label,box", "{f},{c},{x1} {y1} {x2} {y2}"),
    ("image,label,where", "{f},{c},{x1} {y1} {x2} {y2}"),
    ("image\tlabel\tx1\ty1\tx2\ty2", "{f}\t{c}\t{x1}\t{y1}\t{x2}\t{y2}"),
    ("sep=;\nimage;label;x1;y1;x2;y2", "{f};{c};{x1};{y1};{x2};{y2}"),
    ("image|label|x1|y1|x2|y2", "{f}|{c}|{x1}|{y1}|{x2}|{y2}"),
    ("image;label;x1;y1;x2;y2", "{f};{c};{x1},0;{y1},0;{x2},0;{y2},0"),
    ("image_id,class_id,class_name,rad_id,x_min,y_min,x_max,y_max", "{n},{k},{c},R1,{x1},{y1},{x2},{y2}"),
    ("", "images/{f},{x1},{y1},{x2},{y2},{c}"),
    ("0,1,2,3,4,5", "{f},{x1},{y1},{x2},{y2},{c}"),
    ("", "TRAIN,gs://bucket/data/{f},{c},{rx1},{ry1},,,{rx2},{ry2},,"),
    ("", "{f},{c},{rx1},{ry1},{rx2},{ry1},{rx2},{ry2},{rx1},{ry2}"),
    ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf", "{n},xclick,{c},1,{rx1},{rx2},{ry1},{ry2},0,0,0"),
    ("", "{c},{x1},{y1},{w},{h},{f},{W},{H}"),
    ("", "{f},{W},{H},{c},{x1},{y1},{x2},{y2}"),
    ("Filename;Annotation tag;Upper left corner X;Upper left corner Y;Lower right corner X;Lower right corner Y;Occluded", "{f};{c};{x1};{y1};{x2};{y2};0"),
    ("image,label,x1,y1,x2,y2,x3,y3,x4,y4", "{f},{c},{x1},{y1},{x2},{y1},{x2},{y2},{x1},{y2}"),
    ("filename,class,xmin,ymin,xmax,ymax", '"{f},{c},{x1},{y1},{x2},{y2}"'),
    ('"filename,class,xmin,ymin,xmax,ymax"', '"{f},{c},{x1},{y1},{x2},{y2}"'),
    ("# made by a program\nfilename,class,xmin,ymin,xmax,ymax", "{f},{c},{x1},{y1},{x2},{y2}"),
    ("The boxes of set 3,,,,,\nfilename,class,xmin,ymin,xmax,ymax", "{f},{c},{x1},{y1},{x2},{y2}"),
    ("image_id,PredictionString", "{n},{c} 0.9 {x1} {y1} {x2} {y2}"),
    ("image_id,labels", "{n},{c} {x1} {y1} {x2} {y2}"),
    ("image,annotations", '{f},"[{{\'label\': \'{c}\', \'x\': {x1}, \'y\': {y1}, \'width\': {w}, \'height\': {h}}}]"'),
    ("image,box", '{f},"{{\'left\': {x1}, \'top\': {y1}, \'right\': {x2}, \'bottom\': {y2}, \'class\': \'{c}\'}}"'),
]  # fmt: skip


@pytest.mark.parametrize(("header", "row"), KINDS)
def test_boxes_and_classes_are_right_and_nothing_is_wrong(header: str, row: str, tmp_path: Path) -> None:
    result, dataset = _read(tmp_path, _table(header, row))
    _assert_right(dataset)
    assert (result.supervision, result.report["counts"]) == ("boxes", {})


@pytest.mark.parametrize("row", ["{f},{c},{x1},{y1},{w},{h}", "{f},{c},{x1},{y1},{x2},{y2}"])
def test_the_boxes_tell_what_four_numbers_are(row: str, tmp_path: Path) -> None:
    """A box near the far corner of its picture cannot be both corners and a size."""
    picture(tmp_path / "in/images/c.png", 40, 40)
    last = row.format(f="c.png", c="cat", x1=30, y1=30, x2=38, y2=39, w=8, h=9)
    _, dataset = _read(tmp_path, _table("", row) + last + "\n")
    assert [30.0, 30.0, 38.0, 39.0] in dataset.boxes.tolist()
    assert [4.0, 6.0, 20.0, 26.0] in dataset.boxes.tolist()


def test_gtsdb_names_its_table_txt(tmp_path: Path) -> None:
    """Five numbers behind the picture: corners and a class, which has few values."""
    table = _table("", "{f};{x1};{y1};{x2};{y2};{k}") + "a.png;1;2;9;9;1\n"
    _, dataset = _read(tmp_path, table, "gt.txt", **{"classes.txt": "cat\ndog\n"})
    assert len(dataset.boxes) == 4
    assert [4.0, 6.0, 20.0, 26.0] in dataset.boxes.tolist()
    assert dataset.categories == ("cat", "dog")


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_tables_with_tabs_may_be_called_either(suffix: str, tmp_path: Path) -> None:
    table = _table("image\tlabel\tx1\ty1\tx2\ty2", "{f}\t{c}\t{x1}\t{y1}\t{x2}\t{y2}")
    _assert_right(_read(tmp_path, table, f"labels.{suffix}")[1])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.csv", "cat,0\ndog,1\n"),
        ("label_map.json", '{"0": "cat", "1": "dog"}'),
        ("label_map.json", '{"cat": 0, "dog": 1}'),
        ("classes.json", '["cat", "dog"]'),
        ("data.yaml", "names: [cat, dog]\n"),
        ("class_map.csv", "id,name\n0,cat\n1,dog\n"),
        ("classes.txt", "cat\ndog\n"),
        ("label_map.pbtxt", "item {\n id: 0\n name: \"cat\"\n}\nitem {\n id: 1\n name: 'dog'\n}\n"),
    ],
)
def test_classes_that_are_numbers_are_called_by_the_file_that_names_them(
    name: str, content: str, tmp_path: Path
) -> None:
    table = _table("filename,class_id,xmin,ymin,xmax,ymax", "{f},{k},{x1},{y1},{x2},{y2}")
    result, dataset = _read(tmp_path, table, **{name: content})
    _assert_right(dataset)
    assert result.report["counts"] == {}


def test_classes_that_nothing_names_stay_numbers_and_the_report_says_so(tmp_path: Path) -> None:
    table = _table("filename,class_id,xmin,ymin,xmax,ymax", "{f},{k},{x1},{y1},{x2},{y2}")
    result, dataset = _read(tmp_path, table)
    assert dataset.categories == ("0", "1")
    assert result.report["counts"] == {"unnamed_classes": 1}


def test_a_table_without_classes_has_one_and_the_report_says_so(tmp_path: Path) -> None:
    result, dataset = _read(tmp_path, _table("filename,xmin,ymin,xmax,ymax", "{f},{x1},{y1},{x2},{y2}"))
    assert dataset.categories == ("object",)
    assert "'object'" in result.report["faults"][0]["reason"]


@pytest.mark.parametrize("column", ["usage", "dataset"])
def test_splits_come_from_their_column(column: str, tmp_path: Path) -> None:
    table = _table(f"filename,{column},xmin,ymin,xmax,ymax,class", "{f},{s},{x1},{y1},{x2},{y2},{c}")
    result, _ = _read(tmp_path, table)
    assert result.summary["splits_from"] == "from the archive"
    assert result.summary["splits"]["val"]["annotations"] == 1


@pytest.mark.parametrize(("held_out", "rest"), [("True", "False"), ("1", "0")])
def test_flags_say_what_is_held_out(held_out: str, rest: str, tmp_path: Path) -> None:
    """fastai's is_valid."""
    table = _table("filename,is_valid,xmin,ymin,xmax,ymax,class", "{f},{s},{x1},{y1},{x2},{y2},{c}")
    table = table.replace(",train,", f",{rest},").replace(",val,", f",{held_out},")
    result, _ = _read(tmp_path, table)
    assert result.summary["splits_from"] == "from the archive"
    assert result.summary["splits"]["val"]["annotations"] == 1


def test_retinanet_rows_without_a_box_are_background(tmp_path: Path) -> None:
    picture(tmp_path / "in/images/empty.png", 20, 20)
    table = _table("", "images/{f},{x1},{y1},{x2},{y2},{c}") + "images/empty.png,,,,,\n"
    result, dataset = _read(tmp_path, table)
    _assert_right(dataset)
    assert (len(dataset.images), result.summary["images_without_boxes"]) == (3, 1)


def test_a_first_row_without_a_box_is_no_title(tmp_path: Path) -> None:
    picture(tmp_path / "in/images/empty.png", 20, 20)
    result, dataset = _read(
        tmp_path, "images/empty.png,,,,,\n" + _table("", "images/{f},{x1},{y1},{x2},{y2},{c}")
    )
    _assert_right(dataset)
    assert (len(dataset.images), result.summary["images_without_boxes"]) == (3, 1)


def test_several_boxes_of_a_row(tmp_path: Path) -> None:
    table = 'image,bboxes,labels\na.png,"[[4, 6, 20, 26], [8, 2, 38, 12]]","[\'cat\', \'dog\']"\nb.png,"[[1, 2, 17, 34]]",dog\n'
    _assert_right(_read(tmp_path, table)[1])


LISTS = ["cat;dog", "cat|dog", '"cat, dog"', "\"['cat' 'dog']\"", '"(""cat"", ""dog"")"']


@pytest.mark.parametrize("labels", LISTS)
def test_a_class_for_each_box_of_a_row(labels: str, tmp_path: Path) -> None:
    table = f"image,bboxes,labels\na.png,4 6 20 26;8 2 38 12,{labels}\nb.png,1 2 17 34,dog\n"
    result, dataset = _read(tmp_path, table)
    _assert_right(dataset)
    assert result.report["counts"] == {}


def test_more_boxes_than_classes_name_none(tmp_path: Path) -> None:
    table = (
        "image,bboxes,labels\na.png,20 1 30 9;20 2 28 8;30 3 39 9,\"['cat', 'dog']\"\nb.png,1 2 17 34,dog\n"
    )
    report = _read(tmp_path, table)[0].report
    assert report["counts"] == {"unknown_category": 3, "emptied_image": 1}


def test_turned_boxes_of_four_corners_become_upright(tmp_path: Path) -> None:
    header = "image,label,x1,y1,x2,y2,x3,y3,x4,y4"
    result, dataset = _read(tmp_path, f"{header}\na.png,cat,10,4,20,14,10,24,2,14\n")
    assert _rows(dataset)[0][-4:] == (2, 4, 20, 24)
    assert result.report["counts"]["rotated_box"] == 1


def test_an_angle_beside_the_boxes_is_said(tmp_path: Path) -> None:
    table = _table("image,label,x1,y1,x2,y2,angle", "{f},{c},{x1},{y1},{x2},{y2},0.3")
    assert _read(tmp_path, table)[0].report["counts"] == {"rotated_box": 1}


@pytest.mark.parametrize(("confidence", "said"), [("0.{x1}", {"extra_columns": 1}), ("1", {})])
def test_confidences_that_differ_are_said(confidence: str, said: dict, tmp_path: Path) -> None:
    table = _table("image,label,score,x1,y1,x2,y2", f"{{f}},{{c}},{confidence},{{x1}},{{y1}},{{x2}},{{y2}}")
    result, dataset = _read(tmp_path, table)
    _assert_right(dataset)
    assert result.report["counts"] == said


def test_a_second_column_of_classes_is_said(tmp_path: Path) -> None:
    table = _table("image,category,class,x1,y1,x2,y2", "{f},animal,{c},{x1},{y1},{x2},{y2}")
    result, dataset = _read(tmp_path, table)
    _assert_right(dataset)
    assert result.report["counts"] == {"extra_columns": 1}
    assert "'category' was left out" in result.report["faults"][0]["reason"]


def test_cells_behind_the_header_are_said(tmp_path: Path) -> None:
    table = _table("image,class,x1,y1,x2,y2", "{f},{c},{x1},{y1},{x2},{y2},seen,twice")
    result, dataset = _read(tmp_path, table)
    _assert_right(dataset)
    assert result.report["counts"] == {"extra_columns": 1}


def test_boxes_without_a_class_are_wheat_heads_in_the_columns_of_global_wheat_only(tmp_path: Path) -> None:
    result, dataset = _read(tmp_path, 'image_id,bbox\na,"[30, 6, 8, 20]"\n')
    assert dataset.categories == ("object",)
    assert result.report["counts"] == {"unnamed_classes": 1, "unlisted_image": 1}


def test_numbered_classes_that_count_from_1_are_said(tmp_path: Path) -> None:
    rows = [(*row, int(row[1] == "dog") + 1) for row in BOXES]
    lines = "".join(f"{n}.png,{x1},{y1},{x2},{y2},{k}\n" for n, _, x1, y1, x2, y2, k in rows)
    table = f"filename,x1,y1,x2,y2,class_id\n{lines}"
    result, dataset = _read(tmp_path, table, **{"classes.txt": "cat\ndog\n"})
    _assert_right(dataset)
    assert result.report["counts"] == {"renumbered_classes": 1}


def test_groups_are_crowds_and_machine_names_are_called_by_their_descriptions(tmp_path: Path) -> None:
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
    table = _table(header, "{n},xclick,/m/0{c},1,{rx1},{rx2},{ry1},{ry2},0,0,{k}")
    names = "LabelName,DisplayName\n/m/0cat,cat\n/m/0dog,dog\n"
    result, dataset = _read(
        tmp_path, table, "train-annotations-bbox.csv", **{"class-descriptions-boxable.csv": names}
    )
    _assert_right(dataset)
    assert dataset.iscrowd.tolist() == [
        name == "dog" for name in (dataset.categories[k] for k in dataset.labels)
    ]
    assert result.report["counts"] == {"crowd": 2}


def test_difficult_boxes_count_neither_way(tmp_path: Path) -> None:
    table = _table("filename,difficult,xmin,ymin,xmax,ymax,class", "{f},{k},{x1},{y1},{x2},{y2},{c}")
    result, dataset = _read(tmp_path, table)
    _assert_right(dataset)
    assert result.report["counts"] == {"ignored": 2}


def test_descriptions_without_a_header_name_the_first_class_too(tmp_path: Path) -> None:
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
    table = _table(header, "{n},xclick,/m/0{c},1,{rx1},{rx2},{ry1},{ry2},0,0,0")
    names = {"class-descriptions-boxable.csv": "/m/0cat,cat\n/m/0dog,dog\n"}
    result, dataset = _read(tmp_path, table, "train-annotations-bbox.csv", **names)
    _assert_right(dataset)
    assert result.report["counts"] == {}


def test_machine_names_without_descriptions_are_said(tmp_path: Path) -> None:
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
    result, dataset = _read(tmp_path, _table(header, "{n},x,/m/0{c},1,{rx1},{rx2},{ry1},{ry2},0,0,0"))
    assert dataset.categories == ("/m/0cat", "/m/0dog")
    assert result.report["counts"] == {"unnamed_classes": 1}


def test_vertex_json_lines(tmp_path: Path) -> None:
    row = (
        '{{"imageGcsUri": "gs://bucket/{f}", "boundingBoxAnnotations": [{{"displayName": "{c}", "xMin": "{rx1}", "yMin": "{ry1}", '
        '"xMax": "{rx2}", "yMax": "{ry2}"}}], "dataItemResourceLabels": {{"aiplatform.googleapis.com/ml_use": "{s}"}}}}'
    )
    result, dataset = _read(tmp_path, _table("", row), "import.jsonl")
    _assert_right(dataset)
    assert (result.format, result.summary["splits_from"]) == ("automl", "from the archive")


ASKED = [
    ("", "{f},{c},{x1},{y1},{w},{h}", r"column 3, .* might be x1, y1, x2, y2 or x, y, width, height, and the boxes fit both"),
    ("filename,a,b,c,d,kind", "{f},{x1},{y1},{x2},{y2},{c}", r"'a', 'b', 'c', 'd': rename them"),
    ("filename,xmin,ymin,xmax,ymax,breed,colour", "{f},{x1},{y1},{x2},{y2},{c},{c}", r"'breed', 'colour'.*'label'"),
    ("", "{f},{x1},{y1},{x2},{y2},{x1},{y1},{c}", r"'column 2'.*give it a header"),
    ("image,x,y,w,h,label", "{f},{rcx},{rcy},0.01,0.01,{c}", r"\(x, y, w, h\) might be .*the boxes fit both"),
    ("image,label,x,y,width", "{f},{c},{x1},{y1},{w}", r"'x', 'y', 'width', which are not all of a box"),
    ("image,label,x1,y1,x2", "{f},{c},{x1},{y1},{x2}", r"'x1', 'y1', 'x2', which are not all of a box"),
    ("image,xmin,ymin,xmax,label,ymax", "{f},{x1},{y1},{x2},{y2},{c}", r"they are no numbers"),
    ("image,box,label", "{f},1 1 5 5,{c}", r"x, y, width, height or x1, y1, x2, y2.*fit both"),
    ("image,label,x1,y1,x2,y2", "{f},{c},{x1},{y1},{x2},{y2},{c},1,2,3,4", r"more cells than its header names, such as line 2"),
    ("image,species,breed,x1,y1,x2,y2", "{f},animal,{c},{x1},{y1},{x2},{y2}", r"'species', 'breed'.*'label'"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "row", "question"), ASKED)
def test_what_is_unclear_is_asked_about_with_the_columns_named(
    header: str, row: str, question: str, tmp_path: Path
) -> None:
    with pytest.raises(Unusable, match=question):
        _read(tmp_path, _table(header, row))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("a.png,1,2,x,9,cat", "invalid_annotation"),
        ("a.png,1,2,nan,9,cat", "invalid_annotation"),
        ("a.png,1,2,8,9,", "unknown_category"),
        ("a.png,,,,,cat", "invalid_annotation"),
        ("a.png,1", "invalid_annotation"),
        ("z.png,1,2,8,9,cat", "missing_image"),
    ],
)
def test_lines_that_cannot_be_read_are_counted(line: str, code: str, tmp_path: Path) -> None:
    table = _table("filename,x1,y1,x2,y2,label", "{f},{x1},{y1},{x2},{y2},{c}")
    result, dataset = _read(tmp_path, table + line + "\n")
    _assert_right(dataset)
    assert result.report["counts"] == {code: 1}
    assert result.report["annotations_dropped"] == 1


def test_a_class_that_never_has_a_box_says_that_nothing_is_there(tmp_path: Path) -> None:
    """VinDr's `No finding`."""
    picture(tmp_path / "in/images/empty.png", 20, 20)
    table = _table("image_id,class_name,x_min,y_min,x_max,y_max", "{n},{c},{x1},{y1},{x2},{y2}")
    result, dataset = _read(tmp_path, table + "empty,No finding,,,,\n")
    _assert_right(dataset)
    assert (result.summary["images_without_boxes"], result.report["counts"]) == (1, {})


@pytest.mark.parametrize("side", [400, 90])
def test_percent_in_large_pictures_are_asked_about(side: int, tmp_path: Path) -> None:
    picture(tmp_path / "in/c.png", side, side)
    boxes = [
        (10.5, 20, 30, 40),
        (55, 60, 88, 89.5),
        (1, 2, 30, 40),
        (5, 5, 15, 15),
        (30, 3, 50, 9),
        (2, 2, 9, 9),
    ]
    lines = "".join(f"c.png,cat,{x1},{y1},{x2},{y2}\n" for x1, y1, x2, y2 in boxes)
    table = f"filename,label,x1,y1,x2,y2\n{lines}"
    if side == 90:
        assert len(_read(tmp_path, table)[1].boxes) == 6
    else:
        with pytest.raises(Unusable, match=r"\(x1, y1, x2, y2\) all lie in the first 100 pixels"):
            _read(tmp_path, table)


def test_an_unclear_table_beside_a_clear_one_is_named(tmp_path: Path) -> None:
    table = _table("filename,x1,y1,x2,y2,label", "{f},{x1},{y1},{x2},{y2},{c}")
    features = "filename,a,b,c,d\na.png,1.5,2,3,4\nb.png,1,2,3,4\n"
    result, dataset = _read(tmp_path, table, **{"features.csv": features})
    _assert_right(dataset)
    assert result.report["counts"] == {"unread_file": 1}


@pytest.mark.parametrize("cells", ["\"[{'x': 1}]\"", '"[1, 2]"', '"{}"', "big cat 1 2 3 4 dog 5 6 7 8"])
def test_lists_and_objects_are_no_labels_of_pictures(cells: str, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="not read"):
        _read(tmp_path, f"image,label\na.png,{cells}\nb.png,{cells}\n")
