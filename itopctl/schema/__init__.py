"""The records that pass between packages, each field declared once.

Columns of the store, names in JSON and CSV, headings, units, and what `docs` say of a field follow from these
declarations. To record another measured quantity, add a field here and measure it (`itopctl.train.result`).
"""

from itopctl.schema.field import Better, Field, Source, Unit, fields_of
from itopctl.schema.records import Attempt, Evaluation, Layer, Membership, Meta, Submission, Sweep
from itopctl.schema.run import Run

__all__ = [
    "VERSION", "Attempt", "Better", "Evaluation", "Field", "Layer", "Membership", "Meta", "Run", "Source", "Submission",
    "Sweep", "Unit", "fields_of",
]  # fmt: skip

VERSION = 6
"""Of the store's tables: raised when a field is added."""
