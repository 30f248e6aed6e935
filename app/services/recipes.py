"""Which recipe fine-tunes which architecture, as `app/catalogue.json` has it.

{"recipes": [{"name", "title", "source", "help", "families": [...], "architectures": [patterns],
 "epochs" or "iterations", "batch_size", "image_size", "evaluations", "patience", "ema",
  "data_dependent_init"}],
 "training": {"freeze": [...], "precisions": [...], "default_recipes": [names, the first that fits is taken]}}
"""

from fnmatch import fnmatchcase
from typing import Any

from app.errors import Fault
from app.services.catalogue import catalogue, names, unknown

# fields of a request that a recipe has an answer to
OF_RECIPE = ("batch_size", "image_size", "evaluations", "patience", "ema", "data_dependent_init")
BUDGETS = ("epochs", "iterations", "budget_minutes")


def recipe_names() -> list[str]:
    return names("recipes")


def fitting(architecture: str | None) -> list[str]:
    """Names of the recipes that fit an architecture; none for one that this version does not know."""
    family = next(
        (one["family"] for one in catalogue()["architectures"] if one["name"] == architecture), None
    )
    return [
        one["name"]
        for one in catalogue()["recipes"]
        if family in one["families"]
        and (
            not one["architectures"] or any(fnmatchcase(architecture or "", p) for p in one["architectures"])
        )
    ]


def default_recipe(architecture: str | None) -> str | None:
    """The published recipe of an architecture; None where none fits."""
    able = fitting(architecture)
    return next((name for name in catalogue()["training"]["default_recipes"] if name in able), None)


def chosen(asked: str | None, architecture: str | None) -> str:
    """The recipe asked for, else the published one. Raises LookupError where none fits: see `misfit`."""
    found = asked or default_recipe(architecture)
    if found is None:
        raise LookupError(f"no recipe fits {architecture}")
    return found


def filled(terms: dict[str, Any], recipe: str) -> dict[str, Any]:
    """The terms, with the recipe's values for those that were left out."""
    entry = next(one for one in catalogue()["recipes"] if one["name"] == recipe)
    own = {name: entry[name] for name in OF_RECIPE if terms[name] is None}
    if all(terms[name] is None for name in BUDGETS):
        length = "epochs" if entry["iterations"] is None else "iterations"
        own[length] = entry[length]
    return terms | own | {"recipe": recipe, "precision": terms["precision"] or "auto"}


def faults_of(terms: dict[str, Any], at: str, most_minutes: float) -> list[Fault]:
    """What is wrong with the terms whatever the checkpoint is.

    at: JSON pointer of the object that holds the terms.
    """
    faults = []
    recipe, budgets = terms["recipe"], [name for name in BUDGETS if terms[name] is not None]
    if recipe is not None and recipe not in recipe_names():
        faults.append({"pointer": f"{at}/recipe", "message": unknown("recipe", recipe, recipe_names())})
    if len(budgets) > 1:
        message = f"give one budget, not {' and '.join(budgets)}"
        faults += [{"pointer": f"{at}/{name}", "message": message} for name in budgets[1:]]
    if terms["label_fraction"] is not None and terms["shots"] is not None:
        faults.append({"pointer": f"{at}/shots", "message": "give label_fraction or shots, not both"})
    if terms["budget_minutes"] is not None and terms["budget_minutes"] > most_minutes:
        message = (
            f"a verification may take {most_minutes:g} minutes in all (DETRANK_VERIFY_TIME_LIMIT_S); "
            "ask for less"
        )
        faults.append({"pointer": f"{at}/budget_minutes", "message": message})
    for field, section, what in (
        ("freeze", "freeze", "policy of freezing"),
        ("precision", "precisions", "precision"),
    ):
        known = catalogue()["training"][section]
        if terms[field] is not None and terms[field] not in known:
            faults.append({"pointer": f"{at}/{field}", "message": unknown(what, terms[field], known)})
    return faults


def misfit(recipe: str | None, architecture: str | None, whose: str) -> str | None:
    """Why a recipe (None: the published one) cannot fine-tune `whose` architecture; None where it can."""
    able = fitting(architecture)
    if not able:
        return f"no recipe fits {whose}, a {architecture}"
    if recipe is None or recipe in able:
        return None
    return f"the recipe {recipe} does not fit {whose}, a {architecture}; those that do: {', '.join(able)}"
