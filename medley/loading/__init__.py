"""Bringing inputs into a collection: past failures and interruptions, skipping what is there unchanged."""

from medley.loading.loader import Importer
from medley.loading.report import Failure, Report

__all__ = ["Failure", "Importer", "Report"]
