"""Backups: a collection as of a version, in a folder or a bucket, and back."""

from medley.backup.contents import BackupError
from medley.backup.destination import Destination
from medley.backup.open import open_destination
from medley.backup.restoring import Restored, Restoring
from medley.backup.saving import Saved, Saving

__all__ = ["BackupError", "Destination", "Restored", "Restoring", "Saved", "Saving", "open_destination"]
