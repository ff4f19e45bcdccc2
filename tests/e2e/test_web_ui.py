"""The stock MLflow web UI in headless Chromium: each of its three doors refuses, and opens when the evidence suffices."""

from __future__ import annotations

from typing import Any

import mlflow
import pytest

pytestmark = pytest.mark.slow


def version_of(uri: str) -> str:
    return uri.rsplit("/", 1)[1]


def open_version(page: Any, connected: Any, uri: str) -> None:
    page.goto(f"{connected.url}/#/models/{connected.model}/versions/{version_of(uri)}")
    page.reload()
    page.get_by_role("switch").first.wait_for()


def ask_for_alias(page: Any, connected: Any, uri: str) -> None:
    """Aliases: Add -> type -> Save."""
    open_version(page, connected, uri)
    page.get_by_role("button", name="Add", exact=True).click()
    box = page.locator("[role=dialog] input").first
    box.fill("champion")
    box.press("Enter")
    page.get_by_role("button", name="Save aliases").click()


def ask_for_stage(page: Any, connected: Any, uri: str) -> None:
    """The registry's older face: Stage -> Transition to -> Production."""
    open_version(page, connected, uri)
    # The browser remembers the choice, so the second time it is off already.
    if page.get_by_role("switch").first.get_attribute("aria-checked") == "true":
        page.get_by_role("switch").first.click()
        page.get_by_role("button", name="Disable").click()
    page.locator(".mlflow-stage-transition-dropdown").click()
    page.locator("[role=menu] li, .du-bois-light-dropdown-menu-item, [role=menuitem]").filter(
        has_text="Production"
    ).first.click()
    page.get_by_role("dialog").get_by_role("button").last.click()


def ask_for_copy(page: Any, connected: Any, uri: str) -> None:
    """Promote model -> the protected registered model -> Promote."""
    open_version(page, connected, uri)
    page.get_by_role("button", name="Promote model").click()
    page.locator("[role=dialog] input").last.click()
    page.keyboard.type("protected")
    page.locator("[title='protected']").last.click()
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()


def sees_refusal(page: Any) -> None:
    page.get_by_text("quantgov refused").first.wait_for()


def test_an_alias_is_refused_without_and_set_with_evidence(page: Any, connected: Any) -> None:
    ask_for_alias(page, connected, connected.bare)
    sees_refusal(page)
    assert mlflow.MlflowClient().get_registered_model(connected.model).aliases == {}
    ask_for_alias(page, connected, connected.good)
    page.get_by_role("dialog").wait_for(state="hidden")
    aliases = mlflow.MlflowClient().get_registered_model(connected.model).aliases
    assert aliases == {"champion": version_of(connected.good)}


def test_a_stage_is_refused_without_and_moved_with_evidence(page: Any, connected: Any) -> None:
    ask_for_stage(page, connected, connected.bare)
    sees_refusal(page)
    client = mlflow.MlflowClient()
    assert client.get_model_version(connected.model, version_of(connected.bare)).current_stage == "None"
    ask_for_stage(page, connected, connected.good)
    page.locator(".mlflow-stage-transition-dropdown").get_by_text("Production").wait_for()
    assert client.get_model_version(connected.model, version_of(connected.good)).current_stage == "Production"


def test_a_copy_into_a_protected_model_is_refused_without_and_made_with_evidence(page: Any, connected: Any) -> None:
    ask_for_copy(page, connected, connected.bare)
    sees_refusal(page)
    client = mlflow.MlflowClient()
    assert client.search_model_versions("name = 'protected'") == []
    # The parent first: a version can only be taken back to a parent in its own registered model.
    client.copy_model_version(connected.parent, "protected")
    ask_for_copy(page, connected, connected.good)
    page.get_by_role("dialog").wait_for(state="hidden")
    assert len(client.search_model_versions("name = 'protected'")) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_our_pages_are_accessible_and_show_every_version(page: Any, connected: Any, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    for path in (
        "",
        "ledger",
        f"models/{connected.model}",
        f"models/{connected.model}/versions/{version_of(connected.good)}",
    ):
        page.goto(f"{connected.url}/quantgov/{path}")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
