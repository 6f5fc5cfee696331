"""Ports, values and errors of the embedder."""
