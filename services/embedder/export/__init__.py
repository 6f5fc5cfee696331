"""Conversion of users' models to folders that the embedder serves: `python -m services.embedder.export`.

Needs the extra `export`, with torch and transformers; the embedder itself imports nothing from here.
"""
