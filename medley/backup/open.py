"""Opens the destination of a backup by its name."""

from pathlib import Path

from medley.backup.destination import Destination, FolderDestination


def open_destination(place: str) -> Destination:
    """Return the folder or the bucket (`s3://bucket/prefix`) that `place` names.

    Raises:
        ValueError: the bucket has no name, or the packages for buckets are not installed.
    """
    if not place.startswith("s3://"):
        return FolderDestination(Path(place))
    try:
        from medley.backup.bucket import BucketDestination  # noqa: PLC0415  # what it imports comes with an extra
    except ModuleNotFoundError as error:
        raise ValueError(f"backups in buckets need {error.name}: pip install 'medley[s3]'") from error
    return BucketDestination.from_url(place)
