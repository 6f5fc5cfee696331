"""Fingerprints: a fingerprint of everything that makes a vector, so that vectors made otherwise are never mixed.

What goes in: the SHA-256 of every graph and tokenizer a vector passes through (those of the model a text head comes
after included), the token limit, padding and prefixes, the parameters of picture preprocessing with the version of its
code, and what the runtime says of itself where it bears on precision. What stays out: names and summaries, the number
of threads, and the runtime's release, which may move the last digits but not a ranking, and would make every upgrade a
re-embedding.
"""

import hashlib
import json

LENGTH = 32


def compute_fingerprint(makings: object) -> str:
    """Return 32 lower-case hexadecimal digits for `makings`, made of dicts, lists, strings, numbers and None."""
    canonical = json.dumps(makings, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]
