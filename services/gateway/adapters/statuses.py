"""Per-item status to error."""

from google.rpc import status_pb2

from services.common.errors import ServiceError
from services.common.rpc.statuses import from_status


def to_error(status: status_pb2.Status) -> ServiceError:
    """Return `status`, of one item of a batch, as an error.

    Raises:
        RuntimeError: its reason is not one of the API's.
    """
    error = from_status(status)
    if error is None:
        raise RuntimeError(f"status {status.code} without a known reason: {status.message}")
    return error
