"""Every method of MLflow's registry store that changes something, and what we do about it.

A test compares this list with the installed MLflow: a method that nobody has judged fails it.
"""

from __future__ import annotations

from typing import Literal

Verdict = Literal["gated", "guarded", "recorded", "open"]

DOORS: dict[str, Verdict] = {
    # Moves a pointer: the policy decides.
    "set_registered_model_alias": "gated",
    "transition_model_version_stage": "gated",
    "create_model_version": "gated",
    "copy_model_version": "gated",  # ends in create_model_version
    # May not take away what a gated pointer or a rollback rests on, nor make a name that passes for another.
    "rename_registered_model": "guarded",
    "delete_registered_model": "guarded",
    "delete_model_version": "guarded",
    "delete_registered_model_alias": "recorded",
    "create_registered_model": "guarded",
    # Carry no authority: the gate never reads tags or descriptions.
    "update_registered_model": "open",
    "update_model_version": "open",
    "set_registered_model_tag": "open",
    "delete_registered_model_tag": "open",
    "set_model_version_tag": "open",
    "delete_model_version_tag": "open",
    # Prompts: their alias and version calls end in the methods above.
    "create_prompt": "guarded",
    "create_prompt_version": "gated",
    "set_prompt_alias": "gated",
    "delete_prompt": "guarded",
    "delete_prompt_version": "guarded",
    "delete_prompt_alias": "recorded",
    "set_prompt_tag": "open",
    "delete_prompt_tag": "open",
    "set_prompt_version_tag": "open",
    "delete_prompt_version_tag": "open",
    "link_prompt_version_to_model": "open",
    "link_prompt_version_to_run": "open",
    "link_prompts_to_trace": "open",
    # Notify; they cannot veto, and cannot change a pointer.
    "create_webhook": "open",
    "update_webhook": "open",
    "delete_webhook": "open",
}
READS = frozenset(
    {
        "get_latest_versions",
        "get_model_version",
        "get_model_version_by_alias",
        "get_model_version_download_uri",
        "get_prompt",
        "get_prompt_version",
        "get_prompt_version_by_alias",
        "get_registered_model",
        "get_webhook",
        "list_webhooks",
        "list_webhooks_by_event",
        "search_model_versions",
        "search_prompt_versions",
        "search_prompts",
        "search_registered_models",
        "test_webhook",  # sends a made-up event, and changes nothing
    }
)
"""Every method that changes nothing."""


def unjudged(store: type) -> list[str]:
    """Methods of a registry store that nobody has judged: each could be a way around the gate."""
    methods = [name for name in dir(store) if not name.startswith("_") and callable(getattr(store, name))]
    return sorted(set(methods) - set(DOORS) - READS)
