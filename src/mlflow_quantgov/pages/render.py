"""The template environment that pages and the report share: everything is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mlflow_quantgov.errors import short, visible
from mlflow_quantgov.gate.doors.static_prefix import static_prefix


def _shown(value: Any) -> Any:
    """Whatever stands in a page, with the characters visible that would turn the direction of what stands around it."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_environment = Environment(
    loader=PackageLoader("mlflow_quantgov.pages", "templates"),
    autoescape=True,
    finalize=_shown,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["short"] = lambda digest: str(digest or "")[:19]
_environment.filters["cut"] = lambda name: short(name or "", 40, quoted=False)
_environment.filters["percent"] = lambda value: f"{value:.1%}"
_environment.filters["small"] = lambda share: "not measured" if share is None else f"{100 * share:.3g} %"
_environment.filters["time"] = lambda value: str(value)[:19].replace("T", " ")


def render(template: str, **values: Any) -> str:
    """Render a template of this package; `root` is what the server's addresses begin with."""
    return _environment.get_template(template).render(root=static_prefix(), **values)
