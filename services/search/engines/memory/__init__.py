"""The plain engine: the oracle of the contracts."""
