"""Adapters of the embedder service: one module a technology."""
