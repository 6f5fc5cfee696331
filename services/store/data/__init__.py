"""Reading and writing rows and media."""
