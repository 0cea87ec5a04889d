"""The command line: parse, call the public API, show. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TextIO

import typer

from ..errors import SeewhyError
from ..safe_names import shown
from .app import app
from .interrupts import InterruptError

_INTERRUPTED = 130  # the exit status


def main() -> None:
    """Runs `seewhy`: exits 0, 1 with one line for what the user can mend, 130 when interrupted.

    `--debug`, anywhere, shows tracebacks.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug=debug))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Runs one command line and returns the exit status."""
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _tell_warning
            status = app(arguments, prog_name="seewhy", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        ended = _ended_by(error)
        if ended is not None:
            return ended
        if debug:
            raise
        return _fail(_words_of(error, arguments))
    return _interrupted() if status == _INTERRUPTED else status or 0  # newer typer returns it


def _ended_by(error: BaseException) -> int | None:
    """The exit status of what is no error of a command: a way out of it, or an interrupt; else None."""
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, InterruptError):
        return _fail(str(error), _INTERRUPTED)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _interrupted()
    if isinstance(error, BrokenPipeError):  # the reader of our output left
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # else Python complains at its own flush
        return 0
    return None


def _words_of(error: BaseException, arguments: list[str]) -> str:
    """What is said of an error; nothing where the help was printed instead."""
    if isinstance(error, SeewhyError):
        return str(error)
    if hasattr(error, "format_message"):  # a wrong command line, whichever parser typer brings
        context = getattr(error, "ctx", None)
        command = context.command_path if context else _command_of(arguments)
        said = error.format_message()
        return f"{said} ('{command} --help' lists what there is)" if said else ""
    if isinstance(error, OSError) and error.strerror:
        where = f"'{error.filename}'" if error.filename else "a file"
        ways = "check its rights, and the disk's room"
        return f"{where} cannot be read or written: {error.strerror}; {ways}"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} (--debug shows where)"


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
    return _fail("interrupted; nothing was finished", _INTERRUPTED)


def _fail(message: str, status: int = 1) -> int:
    if message:
        print(f"seewhy: {shown(message)}", file=sys.stderr)
    return status
