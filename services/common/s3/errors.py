"""Translation of the errors of an S3 endpoint."""

from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError, SSLError

from services.common.errors import ServiceUnavailableError, StorageFullError

S3_ERRORS = (S3Error, ServerError, InvalidResponseError, HTTPError)
REFUSED_CODES = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "ExpiredToken")
_FULL_CODES = ("XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded")
_TRANSIENT_STATUSES = (408, 409, 429, 500, 502, 503, 504)


class NoSuchKeyError(Exception):
    """There is no object with the key."""


class PreconditionFailedError(Exception):
    """There is an object with the key already."""


def error_code(error: Exception) -> str:
    """Return the endpoint's error code; empty if there is none."""
    return error.code or "" if isinstance(error, S3Error) else ""


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed a moment later."""
    if error_code(error) in (*_FULL_CODES, "NoSuchBucket"):
        return False
    if isinstance(error, SSLError):
        return not is_untrusted_certificate(error) and "WRONG_VERSION_NUMBER" not in str(error)
    return isinstance(error, HTTPError) or _status(error) in _TRANSIENT_STATUSES


def is_untrusted_certificate(error: SSLError) -> bool:
    """Return whether the endpoint's certificate is not trusted."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def translate_error(error: Exception, bucket: str) -> Exception:
    """Return the matching error of ours, or `error` itself if there is none."""
    code, status = error_code(error), _status(error)
    if code in _FULL_CODES or status == 507:
        return StorageFullError(f"bucket {bucket}")
    if code == "NoSuchKey":
        return NoSuchKeyError()
    if code == "PreconditionFailed":
        return PreconditionFailedError()
    if isinstance(error, HTTPError):
        return ServiceUnavailableError("object store", "does not answer")
    if code in (*REFUSED_CODES, "NoSuchBucket") or status in _TRANSIENT_STATUSES:
        return ServiceUnavailableError("object store", f"returns {code or status} for bucket {bucket!r}")
    return error


def _status(error: Exception) -> int | None:
    match error:
        case S3Error():
            return int(error.response.status)
        case ServerError():
            return int(error.status_code)
        case InvalidResponseError():
            return int(error._code)  # the only way to get the status of a response that is not S3's, e.g. of a proxy
        case _:
            return None
