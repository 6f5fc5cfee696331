"""Measurements: Medley beside the raw parts it is made of, in one run."""
