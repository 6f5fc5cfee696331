"""Adapters of the gateway service: one module a technology."""
