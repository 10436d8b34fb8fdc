"""Access to a loopback server for the user who started it: a sign-in link for the browser and a token for the command
line.

Both live in the memory of the server process. The token is also in a file that only this user can read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import Scope

from milepost.core.addresses import is_loopback
from milepost.settings import state_dir
from milepost.stores.private_files import create_private_folder
from milepost.web.security.api_keys import digest_of
from milepost.web.security.principals import ADMIN, Principal

FOREIGN_HOST = (
    "The Host header names another machine, and this server has no authentication; "
    "use localhost, or start the server with --auth keys"
)


def names_loopback(scope: Scope) -> bool:
    """Return whether the Host header of a request names this machine. With DNS rebinding it names another site."""
    host: str = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "localhost")
    return is_loopback(host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0])


def reached_by_loopback(scope: Scope) -> bool:
    """Return whether a request came in on a loopback address."""
    server = scope.get("server")
    return server is not None and is_loopback(str(server[0]))


log = logging.getLogger("milepost.web.security.local_access")
log.addHandler(logging.NullHandler())

LINK_SECONDS = 600.0
SESSION_SECONDS = 12 * 3600.0
LOCAL = Principal("local", frozenset({ADMIN}))


class LocalAccess:
    """The secrets of one server process. Digests are compared, so a lookup takes the same time for any token."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.token = f"local_{secrets.token_urlsafe(32)}"
        self._token = digest_of(self.token)
        self._files: list[Path] = []
        self._link: tuple[str, float] = ("", 0.0)
        self._sessions: dict[str, float] = {}

    def write_token(self, host: str, port: int) -> None:
        """Write the token to a file that only this user can read. If that fails, the command line needs a key."""
        path = token_file(host, port)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            create_private_folder(str(path.parent))
            for folder in (path.parent, path.parent.parent):
                _refuse_shared(folder)
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(self.token)
            fresh.replace(path)
        except OSError as error:
            log.warning("could not write token file %s: %s; set MILEPOST_KEY for the command line", path, error)
        else:
            self._files.append(path)

    def close(self) -> None:
        """Remove the token files, unless a newer server has overwritten them."""
        for path in self._files:
            with contextlib.suppress(OSError):
                if path.read_text() == self.token:
                    path.unlink()

    def new_link(self) -> str:
        """Return the token of a new sign-in link, valid once and for ten minutes. It replaces the previous link."""
        text = f"once_{secrets.token_urlsafe(32)}"
        self._link = (digest_of(text), self._clock() + LINK_SECONDS)
        return text

    def sign_in(self, text: str) -> str | None:
        """Return a new session for the token of the file or of a link, or None. A link is used up."""
        digest = digest_of(text)
        link, until = self._link
        if digest == link and self._clock() < until:
            self._link = ("", 0.0)
        elif digest != self._token:
            return None
        session = f"local-session_{secrets.token_urlsafe(32)}"
        now = self._clock()
        self._sessions = {one: end for one, end in self._sessions.items() if end > now}
        self._sessions[digest_of(session)] = now + SESSION_SECONDS
        return session

    def find(self, token: str) -> Principal | None:
        """Return the principal of the token in the file, or None."""
        return LOCAL if digest_of(token) == self._token else None

    def of_session(self, text: str) -> Principal | None:
        """Return the principal of a session, or None."""
        return LOCAL if self._sessions.get(digest_of(text), 0.0) > self._clock() else None

    def sign_out(self, text: str) -> None:
        """End a session."""
        self._sessions.pop(digest_of(text), None)


def _refuse_shared(folder: Path) -> None:
    """Refuse a folder in which another user could replace files. Raises PermissionError."""
    held = folder.stat()
    if held.st_uid != os.getuid() or stat.S_IMODE(held.st_mode) & 0o022:
        raise PermissionError(f"{folder} is writable by other users; run: chown $USER {folder}; chmod go-w {folder}")


def token_file(host: str, port: int) -> Path:
    """Return the path of the token file of a server on an address of this machine."""
    return state_dir() / "servers" / f"{host.strip('[]').lower().replace(':', '_')}_{port}.token"


def token_for(url: str) -> tuple[str, str | None]:
    """Return the URL to use for a server, and its token or None if this user has none.

    A name such as localhost may lead to another user's server on a different address and the same port. A token is
    therefore sent only to the address in its file name, and `localhost` becomes 127.0.0.1 if the server listens there.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        return url, None
    if parts.scheme != "http":
        return url, None
    if host == "localhost" and (token := _read(token_file("127.0.0.1", port))) is not None:
        return parts._replace(netloc=f"127.0.0.1:{port}").geturl(), token
    return url, _read(token_file(host, port)) if host.replace(".", "").isdigit() or ":" in host else None


def _read(path: Path) -> str | None:
    """Return the token of a file that only this user can read, or None."""
    try:
        with path.open() as file:
            held = os.fstat(file.fileno())
            private = held.st_uid == os.getuid() and not stat.S_IMODE(held.st_mode) & 0o077
            return file.read(200) if private else None
    except (OSError, ValueError):
        return None
