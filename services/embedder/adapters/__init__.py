"""Runtimes for models, and the reader of model folders."""
