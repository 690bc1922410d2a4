"""The command line: one function per verb, named as what it drives. Only this package prints."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness import foreign
from harness.errors import HarnessError
from targets.profile import ProfileError

app = typer.Typer(
    name="edgewise",
    help="Which device, which architecture, which compression? Measured here, projected elsewhere.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
DEVICES = "EDGEWISE_DEVICES"  # a user's own folder of device profiles
STOPPED = 130  # 128 + SIGINT
NO_TORCH = (
    "this needs PyTorch, to train or as the reference: pip install 'edgewise[torch]', or "
    "'.[torch]' in a checkout; README.md names the CPU build"
)


@app.callback()
def options(
    plugins: Annotated[
        Path | None, typer.Option(help="Your own kernels, mixers, formats...: laid out like ours.")
    ] = None,
    devices: Annotated[Path | None, typer.Option(help="Your own device profiles (TOML).")] = None,
) -> None:
    """Options of every verb; both may be set in the environment too."""
    if plugins is not None:
        os.environ["EDGEWISE_PLUGINS"] = str(plugins.resolve())
    if devices is not None:
        os.environ[DEVICES] = str(devices.resolve())


def load_verbs() -> typer.Typer:
    """The app with every verb in it."""
    from harness.cli import (  # noqa: F401
        answers,
        daily,
        elsewhere,
        fitting,
        machine,
        models,
        peers,
        projecting,
        rows,
    )

    return app


def main() -> None:
    """Run a verb; a user's mistake is one line on stderr and exit code 2, a bug is a traceback."""
    # waiting threads of PyTorch must not spin while another one works
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    load_verbs()
    try:
        foreign.refuse()
        app()
    except (HarnessError, ProfileError) as error:
        print(f"edgewise: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print(f"edgewise: {NO_TORCH}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as end:
        if end.code == STOPPED:  # what Typer makes of Ctrl-C
            print("edgewise: stopped; the same command goes on from here", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        raise SystemExit(0) from None
