"""Imports inputs into a collection: retries, resumes after interruptions, skips unchanged items."""

from medley.importer.importer import Importer
from medley.importer.report import Failure, Report

__all__ = ["Failure", "Importer", "Report"]
