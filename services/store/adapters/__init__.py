"""Adapters of the store service: one module a technology."""
