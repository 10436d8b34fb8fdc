"""Write the files that are generated from the table of fields, `milepost.core.record`; with --check, compare them instead.

Run it after every change of the table: ``python scripts/fields.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from milepost.core.defaults import ATTEMPTS_MAX
from milepost.core.fields import Field
from milepost.core.record import FIELDS, LISTED, PUBLIC, JobFields
from milepost.web import auth
from milepost.web.app import create_app
from milepost.web.server import add_plugin_routes

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- fields: written by scripts/fields.py -->", "<!-- fields: end -->"


def main() -> int:
    """Write the files, or name those that are out of date."""
    texts = generated()
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        print(path.relative_to(ROOT))
        if "--check" not in sys.argv:
            path.write_text(texts[path], "utf-8")
    if stale and "--check" in sys.argv:
        print("out of date; run python scripts/fields.py", file=sys.stderr)
        return 1
    return 0


def generated() -> dict[Path, str]:
    """Return the text of each generated file."""
    reference = ROOT / "docs" / "reference" / "records.md"
    return {
        ROOT / "src" / "milepost" / "manager" / "options.py": options(),
        ROOT / "dashboard" / "src" / "wire" / "fields.ts": typescript(),
        ROOT / "docs" / "openapi.json": openapi_text(),
        reference: between(reference.read_text("utf-8"), "\n".join(table())),
    }


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the whole web interface, as `milepost serve` has it."""
    app = create_app("memory://", auth=auth.api_keys())
    add_plugin_routes(app)
    return app.openapi()


def openapi_text() -> str:
    """Return the document as stable text, one value a line."""
    return json.dumps(openapi_document(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def options() -> str:
    """Return the module with the typed options of the calls that make jobs."""
    worker = [one for one in FIELDS if one.option is not None and one.option.worker]
    manual = [one for one in FIELDS if one.option is not None and one.option.manual and one.name != "metadata"]
    head = '''"""The options of the calls that make jobs, for type checkers. Written by scripts/fields.py; do not edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from milepost.core.job import Job
    from milepost.core.options import Awaited
'''
    submit, create = (
        "What a submit sets in the record of a job for workers.",
        "What `create_job` sets beside the metadata.",
    )
    return "\n\n".join(
        [head, *typed_dict("SubmitFields", submit, worker), *typed_dict("CreateOptions", create, manual)]
    )


def typed_dict(name: str, doc: str, rows: list[Field]) -> Iterator[str]:
    """Yield the class of some options."""
    lines = [f"class {name}(TypedDict, total=False):", f'    """{doc}"""', ""]
    for one in rows:
        if one.option is not None:
            kind = one.option.annotation.replace("'", '"')
            lines += [f"    {one.name}: {kind} | None", f'    """{one.doc}"""']
    yield "\n".join(lines) + "\n"


def typescript() -> str:
    """Return the module with the names of the fields that a row of a list has, and the greatest `max_attempts`."""
    names = "\n".join(f'  "{one.name}",' for one in LISTED)
    return (
        "/** The fields of a job that a row of a list has. Written by scripts/fields.py; do not edit. */\n"
        f"export const ROW_FIELDS = [\n{names}\n] as const;\n\n"
        "/** The greatest `max_attempts`, of tasks whose own task queue limits their attempts. */\n"
        f"export const ATTEMPTS_MAX = {ATTEMPTS_MAX};\n"
    )


def table() -> Iterator[str]:
    """Yield the lines of the reference table."""
    types = JobFields.__annotations__
    yield "| field | type | meaning | set at submit | in lists |"
    yield "| --- | --- | --- | --- | --- |"
    for one in PUBLIC:
        kind = str(types[one.name]).replace("|", "\\|")
        settable = "yes" if one.option is not None else ""
        yield f"| `{one.name}` | `{kind}` | {one.doc} | {settable} | {'yes' if one.listed else ''} |"
    yield ""
    yield "Set at submit, and not part of a `Job`:"
    yield ""
    yield "| option | meaning |"
    yield "| --- | --- |"
    yield from (f"| `{one.name}` | {one.doc} |" for one in FIELDS if one.option is not None and one not in PUBLIC)


def between(text: str, inner: str) -> str:
    """Return a text with what is between the two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"docs/reference/records.md lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
