"""Backups of a collection as of a version, in a folder or a bucket, and their restoration."""

from medley.backup.backup import Backup, BackupResult
from medley.backup.destination import Destination
from medley.backup.format import BackupError
from medley.backup.open import open_destination
from medley.backup.restore import Restore, RestoreResult

__all__ = ["Backup", "BackupError", "BackupResult", "Destination", "Restore", "RestoreResult", "open_destination"]
