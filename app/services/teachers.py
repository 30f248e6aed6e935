"""Detectors that say where objects are in pictures without labels: which may."""

from app.db.tables import Checkpoint, Dataset


def misfit(teacher: Checkpoint, dataset: Dataset) -> str | None:
    """Why it cannot say where the dataset's objects are; None where it knows one of the categories by name."""
    names = (teacher.manifest or {}).get("class_names") or []
    own = [each["name"] for each in (dataset.summary or {}).get("categories") or []]
    if not own or set(own) & set(names):
        return None
    return (
        f"the teacher finds {', '.join(names[:10]) or 'no class'} and the dataset has {', '.join(own[:10])}: give a detector "
        "that was fine-tuned on it"
    )
