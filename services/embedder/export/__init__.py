"""Models that users bring, made into folders the embedder serves: `python -m services.embedder.export`.

Needs the extra `export`, with torch and transformers; the embedder itself never imports anything from here.
"""
