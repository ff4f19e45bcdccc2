"""Prints every route of the installed MLflow's server with the registry's methods that it comes to, as JSON.

A program of its own: putting MLflow's basic-auth app in front changes MLflow's app for good.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.chdir(tempfile.mkdtemp())
os.environ |= {
    "_MLFLOW_SERVER_FILE_STORE": "sqlite:///mlflow.db",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "a password of twenty",
}
ASKS = "_get_model_registry_store"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


def canonical(path: str) -> str:
    """A path without the two beginnings under which MLflow serves it."""
    return re.sub(r"^/?(ajax-api|api)/\d\.\d(?=/|mlflow)", "", path)


def native(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route that FastAPI serves itself."""
    for route in routes:
        if hasattr(route, "original_router"):  # newer FastAPI keeps included routers whole
            yield from native(route.original_router.routes, prefix + route.include_context.prefix)
        elif type(route).__name__ != "Mount":
            for method in getattr(route, "methods", None) or ["WEBSOCKET"]:
                yield method, canonical(prefix + route.path)


def comes_to(source: str) -> dict[str, set[str]]:
    """For every function of a module, the methods of the registry's store that it calls, itself or through others."""
    functions = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    direct, calls = {}, {}
    for name, node in functions.items():
        words = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        used = {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
        direct[name] = used if ASKS in words and name != ASKS else set()
        calls[name] = (words & set(functions)) - {name}
    changed = True
    while changed:
        changed = False
        for name in functions:
            more = set().union(*(direct[one] for one in calls[name])) - direct[name]
            changed = changed or bool(more)
            direct[name] |= more
    return direct


def main() -> None:
    import mlflow
    from mlflow.server import app, auth, handlers
    from mlflow.server.fastapi_app import create_fastapi_app
    from mlflow.server.graphql.graphql_schema_extensions import schema

    auth.create_app(app)
    methods = comes_to(Path(str(handlers.__file__)).read_text())
    routes: dict[str, list[str]] = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        for method in rule.methods & METHODS:
            found = routes.setdefault(f"{method} {canonical(rule.rule)}", [])
            found += sorted(methods.get(getattr(view, "__name__", ""), set()) - set(found))
    for method, path in native(create_fastapi_app(app).routes):
        routes.setdefault(f"{method} {path}", [])
    mutations = sorted(schema.graphql_schema.mutation_type.fields)
    json.dump({"version": mlflow.__version__, "routes": routes, "mutations": mutations}, sys.stdout)


if __name__ == "__main__":
    main()
