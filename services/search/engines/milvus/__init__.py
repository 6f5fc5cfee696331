"""Milvus: collections that outgrow one machine."""
