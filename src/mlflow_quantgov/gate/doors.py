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
    # May not take away what a gated pointer or a rollback rests on.
    "rename_registered_model": "guarded",
    "delete_registered_model": "guarded",
    "delete_model_version": "guarded",
    "delete_registered_model_alias": "recorded",
    # Carry no authority: the gate never reads tags or descriptions.
    "create_registered_model": "open",
    "update_registered_model": "open",
    "update_model_version": "open",
    "set_registered_model_tag": "open",
    "delete_registered_model_tag": "open",
    "set_model_version_tag": "open",
    "delete_model_version_tag": "open",
    # Prompts: their alias and version calls end in the methods above.
    "create_prompt": "open",
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
READING = ("get_", "list_", "search_", "supports_", "test_", "_")
