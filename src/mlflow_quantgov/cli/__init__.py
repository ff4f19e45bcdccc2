"""The `quantgov` command: thin, one file per noun; a command's module is imported only when it runs."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from mlflow_quantgov.errors import QuantgovError, is_silence, no_answer, short, visible
from mlflow_quantgov.version import __version__

# Command -> (module, one line for the overview). The line stands here so that `--help` imports nothing.
COMMANDS: dict[str, tuple[str, str]] = {
    "inspect": ("inspect", "What a model artifact really is, from its bytes."),
    "plan": ("plan", "Which format, from the deployment backward, before quantizing."),
    "targets": ("targets", "Deployment targets: list them, or capture this machine as one."),
    "compare": ("compare", "Not worse? Paired non-inferiority for anybody's per-item scores."),
    "schema": ("schema", "JSON Schemas of statements, policy, target, recipe and kernel table."),
    "log-parent": ("log", "Log and register a full-precision parent."),
    "log": ("log", "Log and register a quantized model against its parent."),
    "evaluate": ("evaluate", "Task evaluation of both sides, item by item."),
    "fidelity": ("fidelity", "KL divergence and perplexity against the parent."),
    "calibration": ("calibration", "Likeness of calibration data to production."),
    "kernels": ("kernels", "Which kernel serves a version on its target."),
    "benchmark": ("benchmark", "Speed and memory against the parent, on this machine."),
    "measure": ("measure", "Everything that the policy will ask for, cheapest first."),
    "quantize": ("quantize", "Quantize a full-precision model as a recipe says."),
    "reproduce": ("quantize", "Run a version's recipe again: does it give the same bytes?"),
    "training": ("training", "State the training that a version below 4 bit rests on."),
    "archive": ("archive", "Archive the parent of a version."),
    "drill": ("archive", "Prove that the archived parent comes back."),
    "restore": ("archive", "Bring the archived parent back into a folder."),
    "attach": ("attach", "Attach a statement that was made elsewhere."),
    "spot-check": ("spot_check", "Measure random items of an evaluation again, by another key."),
    "approve": ("approve", "Agree that a version may stand at a destination, or take that back."),
    "waive": ("waive", "Take the responsibility for one check of one version, for a time."),
    "check": ("promote", "The decision, before asking for it."),
    "promote": ("promote", "Ask for a protected alias or stage."),
    "rollback": ("promote", "Move an alias back to the full-precision parent."),
    "recheck": ("recheck", "What stands at protected places, and what would be refused today."),
    "report": ("report", "Write the report of a version as one HTML file."),
    "audit": ("audit", "The ledger: show, verify, hold fast, export, replay."),
    "server": ("server", "A gated MLflow server."),
    "db": ("db", "The gate's tables, its triggers, and database roles."),
    "keys": ("keys", "Keys that sign evidence, and those that a server believes."),
    "doctor": ("doctor", "Is this deployment really gated?"),
    "demo": ("demo", "The whole story on real models, on this machine."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the story, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mlflow_quantgov.cli.{COMMANDS[cmd_name][0]}_command")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but a reader that has gone is no refusal: on an error with a number click exits with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise BrokenPipeError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "QUANTGOV"})
@click.version_option(__version__, prog_name="quantgov")
def cli() -> None:
    """Let a quantized model reach users only on measured evidence.

    Exit codes: 0 done or allowed, 1 refused, 2 usage or connection error, 3 refused because something is missing or
    inconclusive, 4 tampering detected.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `quantgov` command: every error is one clear message and an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    # Before MLflow and tqdm are imported: their bars would tear ours, and stdout belongs to the answer.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # MLflow would try for minutes in silence; whoever waits at a terminal is told after seconds.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    warnings.filterwarnings("ignore", category=FutureWarning, module="mlflow")
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads our output has gone (`| head`); the interpreter would complain once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    sys.exit(code)


def _run(given: list[str]) -> int:
    """Run a command; its exit code, with every error printed."""
    try:
        code = cli.main(args=given, prog_name="quantgov", standalone_mode=False)
    except BrokenPipeError:
        raise
    except QuantgovError as error:
        return _fail(error.to_dict(), error.exit_code, given)
    except click.exceptions.Abort:
        return _fail({"message": "Stopped.", "why": "Nothing more was written.", "fix": ""}, 2, given)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 0
    except click.ClickException as error:
        usage = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "quantgov"
        return _fail(
            {"message": short(error.format_message(), 500, quoted=False), "why": "", "fix": f"{usage} --help"}, 2, given
        )
    except Exception as error:
        if os.environ.get("QUANTGOV_DEBUG"):
            raise
        return _fail(_unexpected(error), 2, given)
    return code if isinstance(code, int) else 0


def _unexpected(error: Exception) -> dict[str, str]:
    first = (str(error) or type(error).__name__).splitlines()[0][:500]
    if is_silence(error):
        return no_answer(os.environ.get("MLFLOW_TRACKING_URI", "that MLflow is set to")).to_dict()
    if isinstance(error, OSError) and error.filename is not None:
        return {
            "message": f"{short(str(error.filename), 300, quoted=False)} cannot be read or written: {error.strerror}.",
            "why": "Nothing more was written.",
            "fix": f"ls -ld {error.filename}; ls -ld {Path(str(error.filename)).parent}",
        }
    if type(error).__module__.startswith(("mlflow", "requests", "urllib3", "sqlalchemy")):
        return {"message": first, "why": "MLflow or its server did not do what was asked.", "fix": "quantgov doctor"}
    return {
        "message": f"Unexpected {type(error).__name__}: {first}",
        "why": "This is a defect of mlflow-quantgov; nothing was decided.",
        "fix": "QUANTGOV_DEBUG=1 quantgov ...  (and report what it prints)",
    }


def _fail(error: dict[str, Any], code: int, arguments: list[str]) -> int:
    """Print an error; the exit code that goes with it."""
    if "--json" in arguments:
        print(json.dumps({"error": error}))
    else:
        lines = [f"error: {error['message']}", error.get("why", ""), f"Fix: {error['fix']}" if error.get("fix") else ""]
        print("\n".join(visible(line) for line in lines if line), file=sys.stderr)
    return code
