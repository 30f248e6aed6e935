"""Tables that look like boxes and do not say what their columns are: always a question, never a guess."""

from worker.data.faults import Report, Unusable
from worker.data.formats import box_tables
from worker.data.formats.column_roles import Unclear
from worker.data.formats.raw import Raw
from worker.data.tree import Tree

NAME = "unclear_table"
TITLE = "a table of boxes whose columns have to be named (always refused with a question)"


def recognise(tree: Tree) -> str | None:
    """The question that a table of the tree leaves open, or None."""
    return next((roles.question for _, roles in box_tables.sampled(tree) if isinstance(roles, Unclear)), None)


def read(tree: Tree, report: Report) -> Raw:
    """Raises Unusable with the question; where there is none, nothing is read."""
    if question := recognise(tree):
        raise Unusable(f"{question}.", report.to_json())
    return Raw([], ())
