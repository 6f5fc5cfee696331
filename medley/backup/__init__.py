"""Backups: a collection as of a version, in a folder or a bucket, and back."""

from medley.backup.contents import BackupError
from medley.backup.destination import Destination
from medley.backup.open import open_destination
from medley.backup.restoring import Restore, RestoreResult
from medley.backup.saving import Backup, BackupResult

__all__ = ["Backup", "BackupError", "BackupResult", "Destination", "Restore", "RestoreResult", "open_destination"]
