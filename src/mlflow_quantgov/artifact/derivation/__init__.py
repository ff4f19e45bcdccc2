"""Does this quantized model really come from that parent? Shown from the bytes of both, tensor by tensor.

Rounding leaves a trace. A weight that was rounded to the nearest level of a grid lies in the cell of its code: for the
true parent nearly every weight does, for any other model hardly more than chance. A quantizer that moves later columns
to make up for the errors of earlier ones (GPTQ) still rounds the first column as it is. So a parent that was changed,
be it by fine-tuning or by quantizing it once before, shows up long before the change reaches the size of the rounding
error. See docs/explanation/descent.md for the derivation, the limits and what was measured.
"""

from mlflow_quantgov.artifact.derivation.compare import compare
from mlflow_quantgov.artifact.derivation.descent import Descent, LayerDescent
from mlflow_quantgov.artifact.derivation.kinship import Kinship, kinship

__all__ = ["Descent", "Kinship", "LayerDescent", "compare", "kinship"]
