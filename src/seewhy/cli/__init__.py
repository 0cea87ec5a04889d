"""The command line: parse, call the public API, show. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TextIO

from ..safe_names import shown
from .app import app
from .interrupts import InterruptError


def main() -> None:
    """Runs `seewhy`: exits 0, 1 with one line for what the user can mend, 130 when interrupted.

    `--debug`, anywhere, shows tracebacks.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug=debug))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Runs one command line and returns the exit status."""
    import typer

    from ..errors import SeewhyError

    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _tell_warning
            status = app(arguments, prog_name="seewhy", standalone_mode=False)
        sys.stdout.flush()
        return (
            _interrupted() if status == 130 else status or 0
        )  # newer typer returns 130, older raises Abort
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    except InterruptError as error:
        return _fail(str(error), 130)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:  # the reader of our output left
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # else Python complains at its own flush
        return 0
    except SeewhyError as error:
        if debug:
            raise
        return _fail(str(error))
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # a wrong command line, whichever parser typer brings
            said = (
                error.format_message()
            )  # nothing where there was no argument, and the help was printed
            context = getattr(error, "ctx", None)
            command = context.command_path if context else _command_of(arguments)
            return _fail(f"{said} ('{command} --help' lists what there is)") if said else 1
        if isinstance(error, OSError) and error.strerror:
            where = f"'{error.filename}'" if error.filename else "a file"
            return _fail(
                f"{where} cannot be read or written: {error.strerror}; check its rights, and the disk's room"
            )
        said = str(error).strip().splitlines() or [""]
        return _fail(f"{type(error).__name__}: {said[0]} (--debug shows where)")


def _command_of(arguments: list[str]) -> str:
    """The command that a command line begins with, as its help is asked for."""
    import typer.main

    words, commands = ["seewhy"], getattr(typer.main.get_command(app), "commands", {})
    for word in arguments:
        if word not in commands:
            break
        words.append(word)
        commands = getattr(commands[word], "commands", {})
    return " ".join(words)


def _tell_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    for part in str(message).splitlines():
        print(f"seewhy: {shown(part)}", file=sys.stderr)


def _interrupted() -> int:
    return _fail("interrupted; nothing was finished", 130)


def _fail(message: str, status: int = 1) -> int:
    print(f"seewhy: {shown(message)}", file=sys.stderr)
    return status
