"""What there is to ingest: folders of pictures and texts, and manifests in CSV, JSONL and Parquet.

`open_inputs` looks at a path and streams what it finds, each input an item to be or a problem of its own.
"""

from medley.inputs.inputs import BadInputError, Columns, Input, InputError, Inputs
from medley.inputs.reading import open_inputs

__all__ = ["BadInputError", "Columns", "Input", "InputError", "Inputs", "open_inputs"]
