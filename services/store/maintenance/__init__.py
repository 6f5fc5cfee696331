"""Integrity check, purge and garbage collection."""
