"""One file from a web server, whole or not at all."""

import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from pose3d_jax.sources import SourceError

_REMEDY = "check the address and the network, and run it again; files that are whole are kept"
_BUSY = (408, 429, 500, 502, 503, 504)  # HTTP answers after which it is worth trying again


class _Passing(Exception):
    """A fault that may be gone at the next try."""


def fetch(
    url: str,
    path: Path,
    starts: tuple[bytes, ...],
    *,
    attempts: int = 3,
    pause: float = 2.0,
    timeout: float = 30.0,
) -> None:
    """Downloads `url` to `path`, unless the file there is as long as what the server offers.

    The answer is held in memory, and written to a name beside `path` that is then renamed.

    Args:
      url: http or https.
      path: of the file; its parents are made.
      starts: what the content may begin with, white space aside. An error page begins otherwise.
      attempts: tries in all, where the fault may pass.
      pause: seconds before the second try; doubled before each further one.
      timeout: seconds without an answer that count as a fault.

    Raises:
      SourceError: there is no (whole) answer, it is another kind of file, or `path` cannot be
        written.
    """
    if not url.startswith(("http://", "https://")):
        raise SourceError(f"{url}: is no address; give one that begins with http:// or https://")
    there = path.stat().st_size if path.is_file() else None
    for attempt in range(attempts):
        try:
            content = _get(url, there, timeout)
            break
        except _Passing as fault:
            if attempt == attempts - 1:
                raise SourceError(f"{url}: {fault}, {attempts} times; {_REMEDY}") from fault
            time.sleep(pause * 2**attempt)
    if content is None:
        return
    if not content.lstrip().startswith(starts):
        page = b"<html" in content[:1000].lower()
        what = "an HTML page" if page else f"something that begins with {content[:20]!r}"
        raise SourceError(f"{url}: the answer is {what}, not the file; {_REMEDY}")
    _write(path, content)


def _get(url: str, there: int | None, timeout: float) -> bytes | None:
    """The server's whole answer; None if it has `there` bytes. Raises `_Passing`, `SourceError`."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            announced = response.headers["Content-Length"] or ""
            if announced == str(there):
                return None
            content = _read(response)
    except urllib.error.HTTPError as error:
        error.close()
        fault = f"the server answers {error.code} {error.reason}"
        if error.code in _BUSY:
            raise _Passing(fault) from error
        raise SourceError(f"{url}: {fault}; {_REMEDY}") from error
    # Refused, unknown host, time-out, reset, an answer that is no HTTP, an address that is none.
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _Passing(f"no answer ({getattr(error, 'reason', error)})") from error
    if not announced.isdigit():
        raise SourceError(
            f"{url}: the server does not say how long the file is, so that nobody knows whether it "
            f"came whole; download it by hand"
        )
    if len(content) != int(announced):
        raise _Passing(f"only {len(content)} of {announced} bytes came")
    return content


def _read(response: http.client.HTTPResponse) -> bytes:
    """As much of the body as comes before the connection ends."""
    try:
        return response.read()
    except http.client.IncompleteRead as error:
        return error.partial


def _write(path: Path, content: bytes) -> None:
    """Under a name of this process's own, then renamed; a kill leaves that name, never half."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another folder"
        ) from error
