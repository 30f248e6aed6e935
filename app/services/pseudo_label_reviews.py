"""The review of pseudo boxes: what is to be looked at, what was decided, and what that says of all boxes."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from app.db.documents import Review
from app.db.tables import Dataset, PseudoLabelling
from app.errors import Conflict, Fault, refuse
from app.ids import new_id
from app.queue import tree
from app.queue.jobs import MAX_ATTEMPTS
from app.queue.states import JobKind, ResourceState
from app.schemas.pseudo_label_reviews import (
    CocoDocument,
    Corrected,
    ItemDecision,
    PictureCount,
    ReviewDecisions,
    ReviewView,
)
from app.services.records import owned
from app.services.review_estimates import Estimate, estimates_of, is_right

METHOD = (
    "Boxes are drawn at random within the thirds of all boxes by score, half of them from the most doubtful third; each third "
    "counts as its share of all boxes, so the order in which they are shown biases nothing. Limits: 95 %, Wilson's within the "
    "thirds, joined. Missed objects are counted in pictures drawn at random."
)
# a labelling tool may round what it was given
SAME_PIXELS = 0.51


def reviewed(session: Session, workspace_id: str, id: str, *, lock: bool = False) -> PseudoLabelling:
    """The pseudo-labelling. Raises NotFound, and Conflict where there is nothing to review."""
    row = owned(session, PseudoLabelling, workspace_id, id, lock=lock)
    if row.review is None:
        raise Conflict(
            f"the pseudo-labelling {id} is {row.state}: there are boxes to review once it has succeeded"
        )
    return row


def view(session: Session, row: PseudoLabelling) -> ReviewView:
    review = _of(row)
    urls = _urls(session, row, review)
    estimates = estimates_of(review)
    items = [
        {
            **{"decision": None, "corrected": None},
            **each,
            "image_url": urls.get(each["image_id"]),
            "right": is_right(each),
        }
        for each in review["items"]
    ]
    pictures = [
        {"missed": None, **each, "image_url": urls.get(each["image_id"])} for each in review["pictures"]
    ]
    return ReviewView.model_validate(
        {
            "items": items,
            "pictures": pictures,
            "categories": review["categories"],
            "decided": sum(each.get("decision") is not None for each in review["items"]),
            "estimates": {name: asdict(one) for name, one in estimates.items()},
            "summary": _summary(review, estimates),
            "method": METHOD,
        }
    )


def decide(session: Session, workspace_id: str, id: str, asked: ReviewDecisions) -> PseudoLabelling:
    """Writes what was decided. Raises NotFound, Conflict, and InvalidRequest for what is not to be reviewed."""
    row = reviewed(session, workspace_id, id, lock=True)
    review = _of(row)
    known = {each["number"]: each for each in review["items"]}
    shown = {each["image_id"]: each for each in review["pictures"]}
    faults: list[Fault] = []
    for place, one in enumerate(asked.items):
        if one.number not in known:
            message = f"there is no box {one.number}: they are numbered from 1 to {len(known)}"
            faults.append({"pointer": f"/items/{place}/number", "message": message})
        if one.corrected is not None and one.corrected.category not in review["categories"]:
            message = (
                f"no category is called {one.corrected.category!r}: {', '.join(review['categories'][:20])}"
            )
            faults.append({"pointer": f"/items/{place}/corrected/category", "message": message})
    for place, count in enumerate(asked.pictures):
        if count.image_id not in shown:
            message = f"in image {count.image_id} nothing is to be counted: {', '.join(map(str, shown))}"
            faults.append({"pointer": f"/pictures/{place}/image_id", "message": message})
    refuse(faults)
    for one in asked.items:
        known[one.number] |= {
            "decision": one.decision,
            "corrected": one.corrected.model_dump() if one.corrected else None,
        }
    for count in asked.pictures:
        shown[count.image_id]["missed"] = count.missed
    review["items"], review["pictures"] = list(known.values()), list(shown.values())
    row.review = review
    row.version += 1
    return row


def to_coco(session: Session, row: PseudoLabelling) -> dict[str, Any]:
    """The pictures to be looked at, with their pseudo boxes as far as decided, for a labelling tool: what was corrected is where
    it was put, what was rejected is gone, and a person's box has no score."""
    review = _of(row)
    numbers = {name: number for number, name in enumerate(review["categories"], 1)}
    boxes: dict[int, dict[str, Any]] = {each["annotation_id"]: each for each in _all_boxes(review)}
    for id, change in changes_of(row).items():
        boxes[id] = {**boxes[id], **(change or {}), "score": None, "gone": change is None}
    return {
        "info": {
            "description": f"pseudo boxes of {row.id} to review: leave what is right, move what is not, delete what is none, and "
            "draw what is missing in the pictures with count_missing",
            "pseudo_labelling_id": row.id,
        },
        "images": [
            {**each, "count_missing": each["id"] in {p["image_id"] for p in review["pictures"]}}
            for each in review["images"]
        ],
        "annotations": [
            {
                "id": id,
                "image_id": each["image_id"],
                "category_id": numbers[each["category"]],
                "bbox": each["bbox"],
                "area": round(each["bbox"][2] * each["bbox"][3], 3),
                "iscrowd": 0,
                **({} if each["score"] is None else {"score": each["score"]}),
            }
            for id, each in sorted(boxes.items())
            if not each.get("gone")
        ],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }


def changes_of(row: PseudoLabelling) -> dict[int, dict[str, Any] | None]:
    """By annotation id of the dataset that was made: the box and category that were decided on, None where there is no object."""
    decided = [each for each in _of(row)["items"] if each.get("decision")]
    return {
        each["annotation_id"]: None
        if each["decision"] == "reject"
        else dict(each["corrected"])
        if each["decision"] == "correct"
        else {"bbox": each["bbox"], "category": each["category"]}
        for each in decided
    }


def make_dataset(
    session: Session, workspace_id: str, id: str, name: str | None, *, max_attempts: int = MAX_ATTEMPTS
) -> Dataset:
    """A dataset in state `processing`: that of the pseudo-labelling, with what was decided until now.

    Raises NotFound, and Conflict where nothing was decided or the dataset is gone.
    """
    row = reviewed(session, workspace_id, id)
    changes = changes_of(row)
    if not changes:
        raise Conflict(f"nothing has been decided yet on boxes of {id}: accept, reject or correct some first")
    source = session.get(Dataset, row.made_dataset_id) if row.made_dataset_id else None
    if source is None:
        raise Conflict(f"the dataset that {id} made is gone, so its boxes cannot be corrected")
    now = datetime.now(UTC)
    made = Dataset(
        id=new_id("ds"),
        workspace_id=workspace_id,
        name=(name or f"{source.name}, reviewed")[:200],
        state=ResourceState.PROCESSING,
        request={
            "reviewed": {
                "pseudo_labelling_id": id,
                "dataset_id": source.id,
                "changes": {str(one): change for one, change in changes.items()},
            }
        },
        lineage=source.lineage,
        created_at=now,
        updated_at=now,
    )
    session.add(made)
    session.flush()
    job = tree.add(session, JobKind.INGEST, made.id, workspace_id=workspace_id, max_attempts=max_attempts)
    made.job_id = job.id
    return made


def decisions_of(row: PseudoLabelling, document: CocoDocument) -> ReviewDecisions:
    """What a document that `to_coco` gave says after somebody has worked on it.

    A box that is where it was is accepted, one that was moved or has another category is corrected, one that is gone is
    rejected; a box without an id of ours is an object that was missed. Raises InvalidRequest.
    """
    review = _of(row)
    names = {each.get("id"): str(each.get("name")) for each in document.categories}
    given: dict[Any, dict[str, Any]] = {}
    faults: list[Fault] = []
    for place, each in enumerate(document.annotations):
        bbox = each.get("bbox")
        numbers = isinstance(bbox, list) and len(bbox) == 4 and all(isinstance(v, int | float) for v in bbox)
        if not numbers or names.get(each.get("category_id")) not in review["categories"]:
            message = f"an annotation needs a bbox of four numbers and a category of {', '.join(review['categories'][:20])}"
            faults.append({"pointer": f"/annotations/{place}", "message": message})
        given[each.get("id")] = each
    refuse(faults[:20])
    items = [_decision(each, given.get(each["annotation_id"]), names) for each in review["items"]]
    ours = {each["annotation_id"] for each in _all_boxes(review)}
    pictures = [
        PictureCount(
            image_id=picture["image_id"],
            missed=sum(
                each.get("image_id") == picture["image_id"] and each.get("id") not in ours
                for each in document.annotations
            ),
        )
        for picture in review["pictures"]
    ]
    return ReviewDecisions(items=items, pictures=pictures)


def _decision(item: dict[str, Any], found: dict[str, Any] | None, names: dict[Any, str]) -> ItemDecision:
    if found is None:
        return ItemDecision(number=item["number"], decision="reject")
    category = names[found["category_id"]]
    moved = max(abs(a - b) for a, b in zip(found["bbox"], item["bbox"], strict=True)) > SAME_PIXELS
    if not moved and category == item["category"]:
        return ItemDecision(number=item["number"], decision="accept")
    corrected = Corrected(bbox=found["bbox"], category=category)
    return ItemDecision(number=item["number"], decision="correct", corrected=corrected)


def _of(row: PseudoLabelling) -> Review:
    """A copy to change: a column of JSON is written when it is given another object."""
    if row.review is None:
        raise AssertionError("asked for before")
    review = row.review
    return {
        **review,
        "items": [dict(each) for each in review["items"]],
        "pictures": [dict(each) for each in review["pictures"]],
    }


def _all_boxes(review: Review) -> list[dict[str, Any]]:
    return [*review["items"], *(box for each in review["pictures"] for box in each["boxes"])]


def _urls(session: Session, row: PseudoLabelling, review: Review) -> dict[int, str]:
    """By image id; none where the dataset has been deleted."""
    if row.made_dataset_id is None or session.get(Dataset, row.made_dataset_id) is None:
        return {}
    at = f"/v1/datasets/{row.made_dataset_id}/images"
    return {each["id"]: f"{at}/{each['file_name'].rpartition('/')[2]}" for each in review["images"]}


def _summary(review: Review, estimates: dict[str, Estimate]) -> list[str]:
    said = []
    for name in ("precision", "recall"):
        one = estimates[name]
        if one.value is None:
            said.append(f"{name} is not known yet: {one.undefined}")
        else:
            said.append(f"{name} {one.value:.2f} ({one.low:.2f} to {one.high:.2f}), from {one.n} answers")
    right = estimates["right"]
    if right.value is not None:
        total = sum(each["boxes"] for each in review["strata"])
        said.append(
            f"of {total} pseudo boxes about {right.value:.0f} ({right.low:.0f} to {right.high:.0f}) are right: as many true boxes, "
            "with every object of their pictures labelled, would do at least as well"
        )
    return said
