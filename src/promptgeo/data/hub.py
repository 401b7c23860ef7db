"""Can the Hugging Face hub be reached? Tried once, so that a machine without a network waits for nothing."""

import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies


@lru_cache
def offline_if_unreachable() -> None:
    """Let the Hugging Face libraries use their cache alone where the hub does not answer.

    They would retry for half a minute.
    """
    from huggingface_hub import constants

    endpoint = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or endpoint.scheme in getproxies():
        return
    try:
        socket.create_connection(
            (endpoint.hostname, endpoint.port or 443), timeout=5
        ).close()  # a slow line answers within it
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by libraries that are not imported yet
        constants.HF_HUB_OFFLINE = True
