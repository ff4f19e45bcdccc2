"""What a config says of the computation beside the weights, in words that two tools or versions share.

Two configs are compared key by key; of what a config leaves out, transformers fills in a default (`config_defaults.json`,
written by `tools/write_config_defaults.py`), and nothing, zero or false means that there is none of it.
"""

from mlflow_quantgov.artifact.settings.compare import differences
from mlflow_quantgov.artifact.settings.config import settings_of_config, text_part
from mlflow_quantgov.artifact.settings.gguf import settings_of_gguf
from mlflow_quantgov.artifact.settings.keys import is_ignored
from mlflow_quantgov.artifact.settings.words import Settings

__all__ = ["Settings", "differences", "is_ignored", "settings_of_config", "settings_of_gguf", "text_part"]
