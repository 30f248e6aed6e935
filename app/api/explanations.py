"""/v1/problems: what each type of problem means. No key is needed: who was refused for want of one may ask why."""

from fastapi import APIRouter

from app.api.problems import responses
from app.explanations import TEXTS, explanation
from app.schemas.explanations import Explanations, ExplanationView

router = APIRouter(prefix="/v1/problems", tags=["problems"])


@router.get("", response_model=Explanations)
def list_problems() -> dict:
    """Every type of problem, with what to do about it."""
    return {"items": [explanation(code) for code in TEXTS]}


@router.get("/{code}", response_model=ExplanationView, responses=responses(404))
def get_problem(code: str) -> object:
    """One type of problem: what happened, why, and what to do."""
    return explanation(code)
