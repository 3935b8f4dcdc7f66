"""Where commands print tables and findings."""

from typing import NoReturn

from rich.console import Console


class Output(Console):
    """Standard output: colours on a terminal alone, and elsewhere one line a row, however long."""

    def __init__(self, *, soft_wrap: bool = False) -> None:
        """`soft_wrap`: leave it to the terminal to break long lines."""
        super().__init__(highlight=False, soft_wrap=soft_wrap)
        if not self.is_terminal:
            self.width = 10_000

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command's `main`, which knows the exit code."""
        raise BrokenPipeError
