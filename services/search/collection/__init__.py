"""One collection in memory: its rows, columns, spaces and versions."""
