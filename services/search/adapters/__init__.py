"""Adapters of the search service: one module a technology."""
