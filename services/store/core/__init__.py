"""Ports, values and errors of the store, and how a row is committed."""
