"""The job type `greet`."""

from milepost import Run
from milepost.plugins import command_line_hints


@command_line_hints(("milepost greetings", "list the greetings"))
def greet(run: Run, name: str) -> str:
    """Greet a person."""
    run.progress(message=f"Greeting {name}")
    return f"Hello, {name}!"
