"""The OpenAPI document that is kept in the repository: ``python -m milepost.web.openapi docs/openapi.json`` writes it.

Owns its form; what is in it comes from the routes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from milepost.web import auth
from milepost.web.routing import create_app
from milepost.web.serving import bring_documents


def document() -> dict[str, Any]:
    """The OpenAPI of the whole interface, as `milepost serve` has it."""
    app = create_app("memory://", auth=auth.api_keys())
    bring_documents(app)
    return app.openapi()


def text() -> str:
    """The document as it is kept: stable, one value a line."""
    return json.dumps(document(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), "utf-8")
