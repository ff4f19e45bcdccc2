"""The template environment that pages and the report share: everything is escaped."""

from __future__ import annotations

import os
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_environment = Environment(
    loader=PackageLoader("mlflow_quantgov.pages", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["short"] = lambda digest: str(digest or "")[:19]
_environment.filters["percent"] = lambda value: f"{value:.1%}"
_environment.filters["small"] = lambda share: "not measured" if share is None else f"{100 * share:.3g} %"
_environment.filters["time"] = lambda value: str(value)[:19].replace("T", " ")


def render(template: str, **values: Any) -> str:
    """Render a template of this package; `root` is what the server's addresses begin with."""
    root = os.environ.get("_MLFLOW_STATIC_PREFIX", "").rstrip("/")
    return _environment.get_template(template).render(root=root, **values)
