"""Tools for developing Medley."""
