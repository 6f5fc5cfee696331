"""Checks at startup that a bucket can be used, before anything is stored in it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import lance
from minio.commonconfig import ENABLED
from minio.error import S3Error
from urllib3.exceptions import HTTPError, SSLError

from services.common.errors import ServiceUnavailableError, StorageFullError
from services.common.s3.bucket import S3Bucket
from services.common.s3.errors import S3_ERRORS, PreconditionFailedError, error_code, is_untrusted_certificate
from services.store.core.errors import StartupError

log = logging.getLogger(__name__)

_REMEDIES = {
    "InvalidAccessKeyId": "there is no such access key: check STORE_S3_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key is not that of the access key: check STORE_S3_SECRET_KEY",
    "AccessDenied": "the access key has no access to the bucket: give it the policy in docs/s3.md",
    "RequestTimeTooSkewed": "the clocks of this machine and of the endpoint differ: set them",
    "NoSuchBucket": "there is no such bucket: make it, or set STORE_S3_CREATE_BUCKET=true",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set STORE_S3_REGION",
    "PermanentRedirect": "the bucket is in another region: set STORE_S3_REGION and STORE_S3_ENDPOINT",
    "InvalidBucketName": "the name of the bucket is invalid: check STORE_S3_BUCKET",
    "NotImplemented": "the endpoint cannot encrypt: unset STORE_S3_ENCRYPTION, or set up its keys",
}
_NO_CONDITIONAL_WRITES = (
    "ignores If-None-Match, so concurrent writers of a table would lose rows. Use an endpoint "
    "with conditional writes (MinIO, AWS S3, Ceph RGW and others have them), or keep rows in a folder: STORE_ROWS=lance"
)


def prepare_bucket(bucket: S3Bucket, *, create: bool) -> None:
    """Check that the bucket exists and can be written to; create it first if `create` and there is none.

    Raises:
        StartupError: it cannot be used.
    """
    with _translate_errors(bucket):
        if not _exists(bucket, create=create):
            bucket.client.make_bucket(bucket.options.bucket, bucket.options.region)
            log.info("created bucket %s", bucket.options.bucket)
        probe = f"probe/{uuid4().hex}"
        bucket.put(probe, b"medley")
        bucket.remove(probe)
    _log_recommendations(bucket)


def check_conditional_writes(bucket: S3Bucket) -> None:
    """Check that the endpoint supports writes on the condition that the object does not exist.

    Raises:
        StartupError: the endpoint ignores conditions.
    """
    probe = f"probe/{uuid4().hex}"
    with _translate_errors(bucket):
        try:
            bucket.create(probe, b"first")
            try:
                bucket.create(probe, b"second")
            except PreconditionFailedError:
                return
        finally:
            bucket.remove(probe)
    raise StartupError(f"{bucket.options.url} {_NO_CONDITIONAL_WRITES}")


def check_lance(bucket: S3Bucket) -> None:
    """Check that Lance, which has its own HTTP client and TLS settings, reaches the bucket too.

    Raises:
        StartupError: it does not.
    """
    uri = f"s3://{bucket.options.bucket}/{bucket.options.key('probe/none.lance')}"
    try:
        lance.dataset(uri, storage_options=bucket.options.lance_options())
    except (OSError, ValueError) as error:
        if "Generic S3 error" in str(error):
            problem = " ".join(str(error).partition(", /")[0].split())
            raise StartupError(
                f"{bucket.options.url} answers, but Lance, which stores the rows, cannot use it: {problem}"
            ) from error


def _exists(bucket: S3Bucket, *, create: bool) -> bool:
    """List a page of the bucket: unlike `bucket_exists`, its errors say what is wrong."""
    try:
        bucket.page("probe/")
        return True
    except ServiceUnavailableError as error:
        if create and isinstance(error.__cause__, S3Error) and error_code(error.__cause__) == "NoSuchBucket":
            return False
        raise


def _log_recommendations(bucket: S3Bucket) -> None:
    """Log the versioning and lifecycle rules to set, as far as the access key may read them."""
    name = bucket.options.bucket
    try:
        if bucket.client.get_bucket_versioning(name).status == ENABLED:
            log.warning("bucket %s keeps old versions: let them expire, or space is never freed; see docs/s3.md", name)
        if bucket.client.get_bucket_lifecycle(name) is None:
            log.info(
                "bucket %s has no lifecycle rules: let unfinished uploads expire after a day; see docs/s3.md", name
            )
    except S3_ERRORS as error:
        log.info("cannot read the versioning and lifecycle of bucket %s (%s); see docs/s3.md", name, error_code(error))


@contextmanager
def _translate_errors(bucket: S3Bucket) -> Iterator[None]:
    location = f"bucket {bucket.options.bucket!r} at {bucket.options.url}"
    try:
        yield
    except StartupError:
        raise
    except (StorageFullError, ServiceUnavailableError, PreconditionFailedError, ValueError, *S3_ERRORS) as error:
        raise StartupError(f"{location}: {_explain(error)}") from error


def _explain(error: BaseException) -> str:
    cause = error if isinstance(error, S3_ERRORS) else error.__cause__
    match cause:
        case S3Error():
            return _REMEDIES.get(cause.code or "", f"{cause.code}: {cause.message}")
        case SSLError() if is_untrusted_certificate(cause):
            return f"its certificate is not trusted ({cause}): set STORE_S3_CA_FILE to the CA that signed it"
        case SSLError():
            return f"it does not speak TLS ({cause}): check STORE_S3_SECURE"
        case HTTPError():
            return f"nothing answers ({type(cause).__name__}): check STORE_S3_ENDPOINT and STORE_S3_SECURE"
        case _:
            return str(error)
