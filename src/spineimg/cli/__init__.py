"""The command `spineimg`: arguments and exit codes only.

Exit status: 0 when it did what was asked, 1 when the input could not be used at all, 2 on wrong arguments; then with
one line on standard error. Everything heavy is imported inside the verb that needs it.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from spineimg import __version__
from spineimg.cli.shared import app
from spineimg.errors import SpineImgError

# Each registers its verbs, in the order of the help.
from spineimg.cli import measuring  # noqa: F401  # isort: skip
from spineimg.cli import spine  # noqa: F401  # isort: skip
from spineimg.cli import implants  # noqa: F401  # isort: skip
from spineimg.cli import studies  # noqa: F401  # isort: skip
from spineimg.cli import reporting  # noqa: F401  # isort: skip
from spineimg.cli import exchange  # noqa: F401  # isort: skip
from spineimg.cli import network  # noqa: F401  # isort: skip

# typer brings its own copy of click in newer releases and the real one in older: the class is asked of it.
_WrongArguments: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spineimg {__version__}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)]


@app.callback()
def _root(
    version: VersionOption = False,
) -> None: ...


def main() -> None:
    """Run the command line. One line on standard error for what a user can mend; a traceback is a bug."""
    _fill_streams()
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
    except _WrongArguments as error:
        _complain(f"{error.format_message()} (see spineimg --help)", 2)
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped", 130)
    except SpineImgError as error:
        _complain(str(error), 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _fill_streams() -> None:
    """Streams that the caller closed lead nowhere; else the next file that is opened would take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end


def _complain(text: str, code: int) -> None:
    print("spineimg: " + " ".join(text.split()), file=sys.stderr)  # noqa: T201
    sys.exit(code)
