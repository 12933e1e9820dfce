"""Downloads: one connection is tried; without one, what is in the caches is used, and nothing is tried again."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from robustseg.core.errors import RobustsegError, message_of

HUB = "https://huggingface.co"
TORCH = "https://download.pytorch.org"

LIBRARIES = ("httpcore", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3")
"""Packages whose errors say that a download failed."""


@contextmanager
def online(what: str, host: str, fix: str) -> Iterator[bool]:
    """Within, a library may download; the value says whether there is a connection.

    Args:
        what: is downloaded. host: the address it comes from. fix: what to try where that fails.

    Raises:
        RobustsegError: it is neither in a cache nor can it be downloaded.
    """
    connected = reachable(os.environ.get("HF_ENDPOINT", HUB) if host == HUB else host)
    try:
        with _without_hub(connected):
            yield connected
    except Exception as error:
        if isinstance(error, RobustsegError) or not _of_download(error):
            raise
        raise RobustsegError(
            f"expected {what} from a cache or {host}, got {'' if connected else 'no connection, and '}"
            f"{message_of(error, 200)}; try {fix}"
        ) from error


def reachable(address: str) -> bool:
    """Whether a server answers, whatever it says; proxies of the environment are used."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except Exception:  # whatever the way to a server is broken by
        return False


def _of_download(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in LIBRARIES


@contextmanager
def _without_hub(connected: bool) -> Iterator[None]:
    """Within, without a connection, the client of the Hugging Face hub looks into its cache only."""
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not connected
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
