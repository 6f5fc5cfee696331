"""A neighbour's word on one item of a batch."""

from google.rpc import status_pb2

from services.common.errors import ServiceError
from services.common.rpc.statuses import from_status


def to_error(status: status_pb2.Status) -> ServiceError:
    """Return the error that `status` tells of.

    Raises:
        RuntimeError: it is no error of the API's contract.
    """
    error = from_status(status)
    if error is None:
        raise RuntimeError(f"status {status.code} without a known reason: {status.message}")
    return error
