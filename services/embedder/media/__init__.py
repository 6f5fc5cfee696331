"""Decoding of media."""
