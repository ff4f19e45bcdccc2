"""`python -m mlflow_quantgov`: the `quantgov` command, where its script is not on the PATH."""

from mlflow_quantgov.cli import main

main()
