"""The same refusal, asked for through three doors."""

from __future__ import annotations

import mlflow
import requests
from mlflow.exceptions import MlflowException

from mlflow_quantgov.demo.screen import Screen
from mlflow_quantgov.policy.decision import Decision


def three_ways(uri: str, destination: str, url: str, screen: Screen) -> Decision:
    """Ask by REST as the web UI does, by `MlflowClient`, and by `quantgov promote`; return the last decision.

    Args:
        uri: `models:/NAME/VERSION`.
        destination: `@alias`.
        url: Address of the server.
        screen: Where the answers are shown.
    """
    import mlflow_quantgov as qg

    name, version = uri.removeprefix("models:/").split("/")
    body = {"name": name, "alias": destination.removeprefix("@"), "version": version}
    answer = requests.post(f"{url}/ajax-api/2.0/mlflow/registered-models/alias", json=body, timeout=600)
    screen.say(f"REST, as the web UI sends it: {answer.status_code}")
    screen.say(str(answer.json().get("message", "")), good=answer.ok)
    try:
        mlflow.MlflowClient().set_registered_model_alias(name, destination.removeprefix("@"), version)
        screen.say("MlflowClient: allowed")
    except MlflowException as error:
        screen.say(f"MlflowClient: {error.error_code}")
        screen.say(str(error.message), good=False)
    screen.say(f"quantgov promote {uri} --to {destination}:")
    return qg.promote(uri, destination)
