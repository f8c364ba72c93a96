"""The command line: each command gathers its options and calls the library."""

from __future__ import annotations

import errno
from typing import Any

import click

from dasklmm.cli_results import convert, export, info, plot
from dasklmm.cli_scan import demo, gwas, kinship, simulate
from dasklmm.errors import DaskLMMError
from dasklmm.heap import end_at_once, keep_heap
from dasklmm.interruptions import interruption_said, signals_raised

# Dask, xarray and the rest are imported by the commands that use them: --help answers at once.


class _Group(click.Group):
    """Shows this package's own errors as one plain message, not as a traceback, and interruptions as one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            keep_heap()
            end_at_once()
            with signals_raised(), interruption_said():
                return super().invoke(ctx)
        except DaskLMMError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(_said(error)) from error


def _said(error: OSError) -> str:
    """An error of the system, with what to do where a file cannot be written."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
        return str(error) or type(error).__name__
    place = f"{error.filename!r} cannot be written" if error.filename else "a file cannot be written"
    return (
        f"{place}: {error.strerror}. Free space, or give a place that can be written, and run the same command "
        "again: what is finished is kept."
    )


# An option or choice may be written with _ or -, as Python has the one and shells like the other.
_SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
}


def _say_versions(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from dasklmm.versions import versions

    for name, version in versions().items():
        click.echo(f"{name} {version}")
    context.exit()


@click.group(cls=_Group, context_settings=_SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_say_versions,
    help="Show the versions of dasklmm and of what decides its numbers, and exit.",
)
def main() -> None:
    """Exact linear mixed models for association studies, out of core."""


for command in (gwas, kinship, plot, export, convert, info, simulate, demo):
    main.add_command(command)


if __name__ == "__main__":
    main()
