"""What the columns of a table of boxes are usually called."""

import re
from collections.abc import Sequence

from worker.data.formats import box_order
from worker.data.formats.box_order import Reading
from worker.data.formats.tables import Table


def _words(text: str) -> list[str]:
    return text.split()


PICTURE = _words(
    "filename filepath file imagename imagepath imagefile imagefilename imageid imgname imgpath imgid image img path "
    "picture photo frame framename patientid id name uri url imageuri gcsuri"
)
CLASS = _words(
    "class classname label labelname category categoryname classes labels objectclass objectname classlabel object "
    "species tag type name target cls annotationtag classid labelid categoryid objectclassid labelidx classidx classindex"
)
WEAK = frozenset(_words("object type tag name target species"))  # that may say something else than the class
SPLIT = _words("split set subset partition usage mluse fold phase dataset datasplit datasettype stage")
# fastai's `is_valid` and the like say of each row whether it belongs to one split
HELD_OUT = {"isvalid": "val", "isval": "val", "isvalidation": "val", "istest": "test"}
CROWD = _words("iscrowd crowd isgroupof")
IGNORE = _words("difficult isdifficult ignore ignored")
# What tables have besides, and is no class.
OTHER = frozenset(
    _words(
        "width height depth channels imagewidth imageheight imgwidth imgheight imw imh area confidence score conf prob source "
        "index idx annotationid boxid bboxid objectid instanceid trackid pose truncated occluded isoccluded istruncated "
        "isdepiction isinside timestamp time date annotator annotatorid radid worker url domain comment notes segmentation "
        "folder database rotation angle license"
    )
)
LEFT = _words(
    "xmin x1 left xtl xleft leftx minx xstart startx tlx topleftx x1min ulx xul lx xlow upperleftcornerx"
)
TOP = _words("ymin y1 top ytl ytop topy miny ystart starty tly toplefty uly yul upper ylow upperleftcornery")
RIGHT = _words(
    "xmax x2 right xbr xright rightx maxx xend endx brx bottomrightx lrx xlr rx xhigh lowerrightcornerx"
)
BOTTOM = _words(
    "ymax y2 bottom ybr ybottom bottomy maxy yend endy bry bottomrighty lry ylr lower yhigh lowerrightcornery"
)
CENTER_X = _words("xcenter cx xc centerx xcentre centrex xmid centroidx xmiddle")
CENTER_Y = _words("ycenter cy yc centery ycentre centrey ymid centroidy ymiddle")
# `w` and `h` before `width` and `height`, which are the picture's where a table has both.
WIDTH, HEIGHT = ["w", "bw", "dx", "width"], ["h", "bh", "dy", "height"]
CELL = _words(
    "bbox box bboxes boxes boundingbox boundingboxes bndbox boxesstring coordinates coords rect roi annotations geometry"
)
_OF_BOX = re.compile(r"^(bounding_?box(es)?|bndbox|bboxe?s?|box|bb|rect|roi|coords?)(?=.)")


def is_called_class(name: str) -> bool:
    """Whether a column is called what columns of classes usually are."""
    return _key(name) in CLASS


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Names:
    """The columns of a header, found by what they are called; `bbox_x1`, `Roi.X1` and `x1` are the same."""

    def __init__(self, table: Table) -> None:
        self.keys = [_key(name) for name in table.columns] if table.headed else [""] * len(table.columns)
        self.inner = [_OF_BOX.sub("", key) for key in self.keys]

    def find(self, names: Sequence[str]) -> int | None:
        """The first column with one of the names, in the order of the names."""
        return next((place for name in names for place, key in enumerate(self.keys) if key == name), None)

    def side(self, names: Sequence[str]) -> int | None:
        """As `find`, columns that say that they are of a box (`bbox_width`) before those that do not (`width`)."""
        of_box = (
            place
            for name in names
            for place, (key, inner) in enumerate(zip(self.keys, self.inner, strict=True))
            if inner == name and key != name
        )
        return next(of_box, self.find(names))

    def sides(self, *wanted: Sequence[str]) -> tuple[int, ...] | None:
        """One column for each of the lists of names, or None where one is missing."""
        found = [self.side(names) for names in wanted]
        whole = tuple(place for place in found if place is not None)
        return whole if len(whole) == len(wanted) == len(set(whole)) else None


def box_by_name(names: Names) -> tuple[tuple[int, ...], tuple[Reading, ...]] | None:
    """The columns of boxes by their names, and what the numbers in them may mean; None where no names say it."""
    if names.side(["x3"]) is not None and names.side(["y3"]) is not None:
        # Four corners of a box that may be turned: x1, y1, x2, y2 alone are one side of it.
        first = 0 if names.side(["x0"]) is not None else 1
        found = names.sides(*([f"{axis}{place}"] for place in range(first, first + 4) for axis in "xy"))
        return (found, (box_order.corners,)) if found else None
    if zero_based := names.sides(["x0"], ["y0"], ["x1"], ["y1"]):
        return zero_based, (box_order.corners,)
    if found := names.sides(LEFT, TOP, RIGHT, BOTTOM):
        return found, (box_order.corners,)
    if found := names.sides(CENTER_X, CENTER_Y, WIDTH, HEIGHT):
        return found, (box_order.center_and_size,)
    far = (names.side(RIGHT), names.side(BOTTOM))
    if (found := names.sides(LEFT, TOP, WIDTH, HEIGHT)) and not any(place is not None for place in far):
        return found, (box_order.corner_and_size,)
    if found := names.sides(["x"], ["y"], WIDTH, HEIGHT):
        return found, (box_order.corner_and_size, box_order.center_and_size)
    cell = names.find(CELL)
    return ((cell,), (box_order.corner_and_size, box_order.corners)) if cell is not None else None
