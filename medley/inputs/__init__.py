"""Inputs to ingest: folders of pictures and texts, and manifests in CSV, JSONL and Parquet.

`open_inputs` streams the inputs at a path; each is an item to ingest or a problem.
"""

from medley.inputs.inputs import BadInputError, Columns, Input, InputError, Inputs
from medley.inputs.open import open_inputs

__all__ = ["BadInputError", "Columns", "Input", "InputError", "Inputs", "open_inputs"]
