"""Whether a bucket will do, found out before anything is kept in it."""

import logging
from uuid import uuid4

import lance
from minio.commonconfig import ENABLED
from minio.error import S3Error
from urllib3.exceptions import HTTPError, SSLError

from services.common.errors import ServiceUnavailableError, StorageFullError
from services.common.s3.bucket import S3Bucket
from services.common.s3.errors import S3_ERRORS, PreconditionFailedError, error_code, is_untrusted_certificate
from services.store.core.startup import CannotStartError

log = logging.getLogger(__name__)

_REMEDIES = {
    "InvalidAccessKeyId": "there is no such access key: check STORE_S3_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key is not that of the access key: check STORE_S3_SECRET_KEY",
    "AccessDenied": "the access key may not use the bucket: give it the policy in docs/s3.md",
    "RequestTimeTooSkewed": "the clocks of this machine and of the endpoint differ: set them",
    "NoSuchBucket": "there is no such bucket: make it, or set STORE_S3_CREATE_BUCKET=true",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set STORE_S3_REGION",
    "PermanentRedirect": "the bucket is in another region: set STORE_S3_REGION and STORE_S3_ENDPOINT",
    "InvalidBucketName": "that is no name of a bucket: check STORE_S3_BUCKET",
    "NotImplemented": "the endpoint cannot encrypt: unset STORE_S3_ENCRYPTION, or set up its keys",
}
_NO_CONDITIONS = (
    "ignores If-None-Match, by which writers of a table notice each other: on it, rows would be lost. Use an endpoint "
    "with conditional writes (MinIO, AWS S3, Ceph RGW and others have them), or keep rows in a folder: STORE_ROWS=lance"
)


def make_ready(bucket: S3Bucket, *, create: bool) -> None:
    """Find the bucket, or make it if `create`; and check that it takes objects.

    Raises:
        CannotStartError: what is wrong and what helps.
    """
    with _Refusals(bucket):
        if not _exists(bucket, create=create):
            bucket.client.make_bucket(bucket.options.bucket, bucket.options.region)
            log.info("made bucket %s", bucket.options.bucket)
        probe = f"probe/{uuid4().hex}"
        bucket.put(probe, b"medley")
        bucket.remove(probe)
    _advise(bucket)


def check_conditions(bucket: S3Bucket) -> None:
    """Check that a write can be made on the condition that there is no such object.

    Raises:
        CannotStartError: the endpoint ignores conditions.
    """
    probe = f"probe/{uuid4().hex}"
    with _Refusals(bucket):
        try:
            bucket.create(probe, b"first")
            try:
                bucket.create(probe, b"second")
            except PreconditionFailedError:
                return
        finally:
            bucket.remove(probe)
    raise CannotStartError(f"{bucket.options.url} {_NO_CONDITIONS}")


def check_lance(bucket: S3Bucket) -> None:
    """Check that Lance, which has its own connections and its own idea of certificates, gets there too.

    Raises:
        CannotStartError: it does not.
    """
    place = f"s3://{bucket.options.bucket}/{bucket.options.key('probe/none.lance')}"
    try:
        lance.dataset(place, storage_options=bucket.options.lance_options())
    except (OSError, ValueError) as error:
        if "Generic S3 error" in str(error):
            told = " ".join(str(error).partition(", /")[0].split())
            raise CannotStartError(
                f"{bucket.options.url} answers, but not to Lance, which keeps the rows: {told}"
            ) from error


def _exists(bucket: S3Bucket, *, create: bool) -> bool:
    """Ask for a page of the bucket, since the answer says what is wrong; `bucket_exists` would not."""
    try:
        bucket.page("probe/")
        return True
    except ServiceUnavailableError as error:
        if create and isinstance(error.__cause__, S3Error) and error_code(error.__cause__) == "NoSuchBucket":
            return False
        raise


def _advise(bucket: S3Bucket) -> None:
    """Say what an operator may want to set; who may not ask is not told."""
    name = bucket.options.bucket
    try:
        if bucket.client.get_bucket_versioning(name).status == ENABLED:
            log.warning("bucket %s keeps old versions: let them expire, or space is never freed; see docs/s3.md", name)
        if bucket.client.get_bucket_lifecycle(name) is None:
            log.info("bucket %s has no lifecycle: let unfinished uploads expire after a day; see docs/s3.md", name)
    except S3_ERRORS as error:
        log.info("bucket %s does not tell its versioning and lifecycle (%s); see docs/s3.md", name, error_code(error))


class _Refusals:
    """Turns what goes wrong at the start into one line."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._place = f"bucket {bucket.options.bucket!r} at {bucket.options.url}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case None | CannotStartError():
                return
            case StorageFullError() | ServiceUnavailableError() | PreconditionFailedError() | ValueError():
                raise CannotStartError(f"{self._place}: {_told(error)}") from error
            case _ if isinstance(error, S3_ERRORS):
                raise CannotStartError(f"{self._place}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    cause = error if isinstance(error, S3_ERRORS) else error.__cause__
    match cause:
        case S3Error():
            return _REMEDIES.get(cause.code or "", f"{cause.code}: {cause.message}")
        case SSLError() if is_untrusted_certificate(cause):
            return f"its certificate is not trusted ({cause}): name who signs it in STORE_S3_CA_FILE"
        case SSLError():
            return f"it does not speak TLS ({cause}): check STORE_S3_SECURE"
        case HTTPError():
            return f"nothing answers ({type(cause).__name__}): check STORE_S3_ENDPOINT and STORE_S3_SECURE"
        case _:
            return str(error)
