"""`quantgov demo`: the whole story on real models."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import click

from mlflow_quantgov.cli.output import json_option, print_json, stdout
from mlflow_quantgov.errors import UsageError, require


@click.command()
@click.option("--quick", is_flag=True, help="A very small model; under two minutes.")
@click.option("--keep", is_flag=True, help="Leave the server up at the end, for clicking around.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where everything lies; default: a new temporary folder."
)
@json_option
def demo(quick: bool, keep: bool, folder: Path | None, as_json: bool) -> None:
    """Log, measure, refuse, promote, roll back and report, on this machine, without a network."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import libraries
    from mlflow_quantgov.demo import cast as casts
    from mlflow_quantgov.demo.screen import Screen
    from mlflow_quantgov.demo.story import elapsed, tell

    warnings.filterwarnings("ignore")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    stdout.stderr = as_json
    home = (folder or Path(tempfile.mkdtemp(prefix="quantgov-demo-"))).resolve()
    if (home / "mlflow.db").exists():
        raise UsageError(
            f"{home} holds a demo already.", why="Its database would be mixed with a new one.", fix=f"rm -r {home}"
        )
    home.mkdir(parents=True, exist_ok=True)
    for module in (libraries.module(), "gguf", "lm_eval"):
        require(module, extra="demo", purpose="tell the story")
    # Ended from outside, it still stops the server that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    stdout.print("Preparing the models ...", style="dim")
    cast = casts.skills(home) if quick else casts.smollm2(home)
    stdout.print(f"quantgov demo: {cast.title}, {cast.low_label} and {cast.high_label}", style="bold")
    tell(cast, home, Screen(), keep=keep)
    if as_json:
        print_json({"folder": str(home), "model": cast.model, "seconds": round(time.monotonic() - begun, 1)})
    else:
        stdout.print(f"\nDone in {elapsed(begun)}.")
