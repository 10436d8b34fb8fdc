"""Write the OpenAPI document of the repository: ``python -m milepost.web.openapi docs/openapi.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from milepost.web import auth
from milepost.web.app import create_app
from milepost.web.server import add_plugin_routes


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the whole web interface, as `milepost serve` has it."""
    app = create_app("memory://", auth=auth.api_keys())
    add_plugin_routes(app)
    return app.openapi()


def text() -> str:
    """Return the document as stable text, one value a line."""
    return json.dumps(document(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), "utf-8")
