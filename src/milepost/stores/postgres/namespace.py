"""One namespace of a database: its schema and statements, what this process knows of it, and how it is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors as pg

from milepost.core.defaults import CLOCK_LEAD
from milepost.core.errors import InvalidInputError, LayoutMismatchError, StoreUnavailableError
from milepost.stores.factory import redact_url
from milepost.stores.named_sections import section
from milepost.stores.postgres.connection import Call, Connection, parameters
from milepost.stores.postgres.errors import MISSING, one_line
from milepost.stores.postgres.notifications import Notifications
from milepost.stores.protocol import LAYOUT
from milepost.stores.waiters import Waiters

FOLDER = Path(__file__).parent / "sql"
MIN_SERVER = 150000
MAX_SCHEMA_BYTES = 63
REFUSED_CHARACTERS = "\0\"'%$"
"""Characters that have a meaning in the text of a statement around the name."""


class Namespace:
    """Shared by the blocking and the async store of the same jobs. `patience` is how many seconds to wait for a lock."""

    def __init__(self, url: str, schema: str, patience: float) -> None:
        if not schema or set(schema) & set(REFUSED_CHARACTERS) or len(schema.encode()) > MAX_SCHEMA_BYTES:
            raise InvalidInputError(
                "namespace",
                f"{schema!r:.80} must be the name of a schema: 1 to {MAX_SCHEMA_BYTES} bytes without quotes, % and $",
            )
        if schema.lower().startswith("pg_") or schema == "information_schema":
            raise InvalidInputError("namespace", f"{schema!r} is reserved by PostgreSQL; use another name")
        try:
            self.given: Mapping[str, Any] = parameters(url)
        except psycopg.Error as error:
            raise InvalidInputError(
                "url", f"{redact_url(url)!r} is no PostgreSQL URL: {one_line(error)}; use postgresql://host/database"
            ) from None
        self.schema = schema
        self.patience = patience
        self.sql = Statements(schema)
        self.waiters = Waiters()
        self.notifications = Notifications(self.given, schema, self.waiters)
        self.claim_numbers: dict[str, int] = {}
        """worker of this process -> the number of its last claim."""
        self.unsettled: dict[str, set[str]] = {}
        """transaction of a caller -> groups that may be closed once it has ended; the next commits here look at them."""
        self._seen = 0
        self.is_open = False

    @property
    def where(self) -> str:
        """Return the address for display, without user and password."""
        hosts = str(self.given.get("host") or "localhost").split(",")
        ports = str(self.given.get("port") or "5432").split(",")
        places = ",".join(f"{host}:{ports[min(n, len(ports) - 1)]}" for n, host in enumerate(hosts))
        return f"postgresql://{places}/{self.given.get('dbname') or ''}"

    @property
    def url(self) -> str:
        """Return the URL with the namespace, without user and password."""
        return f"{self.where}#{self.schema}"

    def call(self, name: str, values: Mapping[str, Any] | None = None) -> Call:
        """Return a statement with its values and those of the clock."""
        return self.sql[name], {**(values or {}), "seen": self._seen, "lead": CLOCK_LEAD}

    def saw(self, now: int) -> int:
        """Take a time of the server's clock, behind which that of this process does not fall."""
        if not self._seen - CLOCK_LEAD <= now < self._seen:
            self._seen = now
        return now

    async def open(self, connection: Connection) -> None:
        """Check the server and the layout, create what is missing, and lift the fence. Raises psycopg.Error, StoreError."""
        if self.is_open:
            return
        ((version, encoding),) = (await connection.run(self.call("server")))[0]
        if version < MIN_SERVER:
            raise StoreUnavailableError(
                f"{self.where}: PostgreSQL {version // 10000} is older than {MIN_SERVER // 10000}; upgrade the server",
                temporary=False,
            )
        if encoding != "UTF8":
            raise StoreUnavailableError(
                f"{self.where}: the database has the encoding {encoding}; create one with ENCODING 'UTF8'",
                temporary=False,
            )
        found = await self.layout(connection)
        if found is None:
            await self.create(connection)
            found = await self.layout(connection)
        if found != LAYOUT:
            raise LayoutMismatchError(self.url, str(found), LAYOUT)
        await connection.run(self.call("lift_fence"))
        self.is_open = True

    async def layout(self, connection: Connection) -> int | None:
        """Return the layout of the schema, or None if it has no tables."""
        try:
            (rows,) = await connection.run(self.call("layout"))
        except MISSING:
            return None
        return int(rows[0][0]) if rows else None

    async def create(self, connection: Connection) -> None:
        """Create the schema. Raises StoreUnavailableError if the role may not."""
        try:
            await connection.run((self.sql["schema"], None))
        except pg.InsufficientPrivilege as error:
            await connection.run(("ROLLBACK", None))
            raise StoreUnavailableError(
                f"{self.where}: the schema {self.schema!r} does not exist or is incomplete, and this role may not create "
                f"it ({one_line(error)}); run `milepost migrate` as a role that may, or give the output of "
                "`milepost migrate --sql` to your database administrator",
                temporary=False,
            ) from error


class Statements:
    """The statements of a schema by name, with the schema in place of the [brackets]; read at the first use."""

    def __init__(self, schema: str) -> None:
        self._schema = '"' + schema.replace('"', '""') + '"'
        self._texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = self._in_schema(_statement(name))
        return text

    def with_comments(self, name: str) -> str:
        """Return a statement as it is in its file, for people."""
        return self._in_schema(section(FOLDER, name))

    def _in_schema(self, text: str) -> str:
        return re.sub(r"\[([a-z_]+)\]", self._named, text)

    def _named(self, match: re.Match[str]) -> str:
        return self._schema if match[1] == "schema" else f'{self._schema}."{match[1]}"'


@cache
def _statement(name: str) -> str:
    """Return a statement without its comments."""
    return re.sub(r"(?m)^[ \t]*--.*\n?", "", section(FOLDER, name)).strip()
