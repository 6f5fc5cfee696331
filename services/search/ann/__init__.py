"""Approximate indexes: when they are built, replaced and trusted."""
