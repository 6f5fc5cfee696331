"""Ports, values and errors of the search service: the rest builds on them."""
