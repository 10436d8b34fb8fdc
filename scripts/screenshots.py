"""Take the screenshots of the command line for docs/pictures: `python scripts/screenshots.py`, about two minutes.

The real commands run in tmux, at 80 and at 160 columns, on real documents and on the jobs of the demonstration; what the
terminal shows is drawn as SVG. Needs tmux and the development environment.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTHS = (80, 160)
PATIENCE = 120.0
CELL, LINE, EDGE = 8.4, 19, 16
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
THEME = TerminalTheme(
    (12, 16, 20),
    (232, 237, 242),
    [(12, 16, 20), (255, 154, 143), (95, 208, 138), (238, 187, 98), (125, 180, 255), (198, 168, 242), (120, 200, 210),
     (200, 206, 212)],
    [(120, 132, 146)],
)  # fmt: skip
"""The dark colours of the dashboard."""


class Terminal:
    """A shell in tmux whose screen can be read."""

    def __init__(self, folder: Path, columns: int, lines: int) -> None:
        self.columns = columns
        self._tmux = ["tmux", "-L", f"milepost-pictures-{os.getpid()}-{columns}", "-f", "/dev/null"]
        for name, code in (("milepost", '-c "import sys; from milepost.cli import main; sys.exit(main())"'),):
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {code} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name not in ("MILEPOST_URL", "REDIS_URL", "TMUX")}
        environment = {
            **kept,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONUTF8": "1",
            "XDG_STATE_HOME": str(folder / f"state-{columns}"),
            "XDG_DATA_HOME": str(folder / f"data-{columns}"),
        }
        size = ["-x", str(columns), "-y", str(lines)]
        self._call("new-session", "-d", *size, "bash --norc --noprofile", cwd=folder, env=environment)

    def _call(self, *words: str, **where: object) -> str:
        done = subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True, **where)  # type: ignore[call-overload]
        return str(done.stdout)

    def type(self, keys: str) -> None:
        """Type a line."""
        self._call("send-keys", keys, "Enter")

    def interrupt(self) -> None:
        """Press Ctrl-C and wait for the prompt."""
        self._call("send-keys", "C-c")
        self.until(lambda text: text.rstrip().endswith("$"))
        self._call("send-keys", "clear", "Enter")

    def screen(self, *options: str) -> str:
        """Return the screen without trailing empty lines."""
        return self._call("capture-pane", "-p", *options).rstrip()

    def until(self, good: Callable[[str], object]) -> str:
        """Wait for a screen, and return it with colours."""
        over = time.monotonic() + PATIENCE
        while not good(self.screen()):
            if time.monotonic() > over:
                raise SystemExit(f"unexpected screen:\n{self.screen()}")
            time.sleep(0.05)
        return self.screen("-e")

    def end(self) -> None:
        """Kill the shell and its processes."""
        self._call("kill-server")


def svg(screen: str, columns: int, title: str) -> str:
    """Return a screen as SVG. Each piece has the width of its cells in any font."""
    lines = screen.splitlines()
    console = Console(width=columns, color_system="truecolor", force_terminal=True)
    width, height = columns * CELL + 2 * EDGE, len(lines) * LINE + 2 * EDGE
    drawn = []
    for row, line in enumerate(lines):
        at = 0
        for piece in console.render(Text.from_ansi(line), console.options.update(no_wrap=True, overflow="ignore")):
            text, style = piece.text.rstrip("\n"), piece.style
            if text.strip():
                colour = style.color.get_truecolor(THEME) if style and style.color else THEME.foreground_color
                attributes = (' font-weight="700"' if style and style.bold else "") + (
                    ' opacity=".6"' if style and style.dim else ""
                )
                drawn.append(
                    f'<text x="{EDGE + at * CELL:.1f}" y="{EDGE + row * LINE + 14}" fill="rgb{tuple(colour)}"{attributes} '
                    f'textLength="{len(text) * CELL:.1f}" xml:space="preserve">{escape(text)}</text>'
                )
            at += len(text)
    background = f"rgb{tuple(THEME.background_color)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="{FONT}" font-size="14" role="img"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" rx="8" fill="{background}"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


@contextmanager
def demonstration(folder: Path) -> Iterator[str]:
    """Run `milepost serve --demo`, and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "-c",
        "import sys; from milepost.cli import main; sys.exit(main())",
        "serve",
        "--demo",
        "--port",
        str(port),
    ]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)
    try:
        over = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if server.poll() is not None or time.monotonic() > over:
                raise SystemExit((folder / "server.log").read_text())
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def percent(text: str) -> int:
    """Return the last percentage on a screen, or -1."""
    return int((re.findall(r"(\d+) %", text) or ["-1"])[-1])


def take(folder: Path, columns: int, server: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the screen of each picture of one width."""
    terminal = Terminal(folder, columns, 40)
    try:
        terminal.type("PS1='$ '; clear; milepost run ingestion papers --json > /dev/null; rm -r $XDG_DATA_HOME; clear")
        terminal.until(lambda text: text == "$")  # an earlier run, from which the time left is known
        terminal.type("milepost run ingestion papers")
        yield "run", terminal.until(lambda text: " left" in text and 40 <= percent(text) < 90)
        terminal.until(lambda text: "Next:" in text and text.endswith("$"))
        terminal.type(f"export MILEPOST_URL={server}; clear")
        terminal.until(lambda text: text == "$")
        terminal.type("milepost ls -w -n 18")
        yield "ls", terminal.until(lambda text: text.count(" s ") > 5)
        terminal.interrupt()
        terminal.until(lambda text: text == "$")
        terminal.type("milepost watch status:running type:ingestion")
        yield (
            "watch",
            terminal.until(lambda text: text.count(" left") >= 3 and (columns < 100 or text.count("/s") >= 3)),
        )
        terminal.interrupt()
    finally:
        terminal.end()


def main() -> None:
    """Take all screenshots."""
    with tempfile.TemporaryDirectory(prefix="milepost-pictures-") as made:
        folder = Path(made)
        subprocess.run([sys.executable, str(ROOT / "scripts" / "demo_corpus.py"), str(folder / "papers")], check=True)
        with demonstration(folder) as server:
            for columns in WIDTHS:
                for name, screen in take(folder, columns, server):
                    path = PICTURES / f"{name}-{columns}.svg"
                    path.write_text(svg(screen, columns, f"milepost {name} at {columns} columns"), encoding="utf-8")
                    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
