"""What a client does unless told otherwise."""

SERVER = "127.0.0.1:50050"
TIMEOUT_SECONDS = 30.0
PAGE_SIZE = 100
MAX_MESSAGE_BYTES = 64 * 2**20
ERASE_SECONDS = 600.0
