"""The OpenAPI document of the JSON API, made from the routes as Flask knows them and the contracts that they are checked by."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mlflow_quantgov.pages.contract import LINES, LONGEST_NAME, Contract, ErrorAnswer
from mlflow_quantgov.version import __version__

API_BLUEPRINT = "quantgov_api"
_ARGUMENT = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_REFUSALS = {
    "400": "The request or what it is about is wrong, and how.",
    "403": "It comes from a page of another site, or may not be asked.",
    "404": "What it names is not there.",
    "413": "Its body is too large.",
    "415": "Its body is not plain application/json.",
    "503": "The database or the artifact store does not answer.",
}
_WITH_BODY = {"413", "415"}


def contracts(app: Flask) -> dict[tuple[str, str], Contract | None]:
    """Path and method (in small letters) of every route of the API, with its contract; None where it has none."""
    found = {}
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith(f"{API_BLUEPRINT}."):
            view = app.view_functions[rule.endpoint]
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                found[_ARGUMENT.sub(r"{\1}", rule.rule), method.lower()] = getattr(view, "contract", None)
    return found


def openapi(app: Flask) -> dict[str, Any]:
    """The document."""
    known = {key: one for key, one in contracts(app).items() if one is not None}
    models: list[type[BaseModel]] = [ErrorAnswer]
    for one in known.values():
        models += [model for model in (one.gives, one.takes, one.query) if model is not None]
    distinct = list(dict.fromkeys(models))
    template = "#/components/schemas/{model}"
    _, schemas = models_json_schema([(model, "validation") for model in distinct], ref_template=template)
    parts = schemas.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), one in sorted(known.items(), key=lambda pair: pair[0]):
        paths.setdefault(path, {})[method] = _operation(path, one, parts)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mlflow-quantgov", "version": __version__},
        "paths": paths,
        "components": {"schemas": parts},
    }


def _operation(path: str, one: Contract, parts: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": _content(one.gives, "As asked.", LINES if one.lines else "application/json")}
    for status, meaning in _REFUSALS.items():
        if one.takes is not None or status not in _WITH_BODY:
            answers[status] = _content(ErrorAnswer, meaning)
    made: dict[str, Any] = {"summary": one.summary, "responses": answers}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": LONGEST_NAME}}
        for name in _ARGUMENT_OF_PATH.findall(path)
    ]
    if one.query is not None:
        # What a query holds is text, so the alternatives that no text is are left out.
        for name, schema in parts[one.query.__name__]["properties"].items():
            said = next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), schema)
            parameters.append({"name": name, "in": "query", "required": False, "schema": said})
    if parameters:
        made["parameters"] = parameters
    if one.takes is not None:
        made["requestBody"] = {"required": True, **_content(one.takes)}
    return made


_ARGUMENT_OF_PATH = re.compile(r"{([^{}]+)}")


def _content(model: type[BaseModel], description: str | None = None, media: str = "application/json") -> dict[str, Any]:
    found: dict[str, Any] = {"content": {media: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}}
    return found | ({"description": description} if description else {})
