"""What a pass does with quantized weights: a kernel multiplies with them, emulation writes the whole matrix out first."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_quantgov.artifact.runtimes.onnxruntime.graph import Weights, ran_quantized
from mlflow_quantgov.artifact.runtimes.transformers_operators import watch

torch = pytest.importorskip("torch")


class Packed(torch.nn.Module):
    """A linear layer with int8 weights, by a kernel of torch or by casting the matrix."""

    def __init__(self, out: int, inputs: int, how: str) -> None:
        super().__init__()
        self.out_features, self.in_features, self.how = out, inputs, how
        self.register_buffer("weight", torch.randint(-100, 100, (out, inputs), dtype=torch.int8))
        self.register_buffer("scale", torch.full((out,), 0.01))

    def forward(self, x: Any) -> Any:
        if self.how == "kernel":
            return torch._weight_int8pack_mm(x.bfloat16(), self.weight, self.scale.bfloat16()).float()
        if self.how == "pieces":
            rows = self.weight.split(self.out_features // 2)
            return torch.cat([x @ (part.float() * 0.01).t() for part in rows], dim=-1)
        return torch.nn.functional.linear(x, self.weight.to(torch.float32)) * self.scale


def model(*ways: str) -> Any:
    return torch.nn.Sequential(*(Packed(64, 64, how) for how in ways))


def seen(net: Any) -> Any:
    def run() -> None:
        with torch.inference_mode():
            net(torch.ones(1, 64))

    return watch(net, run)


@pytest.mark.parametrize("how", ["cast", "pieces"])
def test_a_matrix_that_is_cast_for_each_product_is_emulation(how: str) -> None:
    assert seen(model(how)).expanded_share == 1


def test_a_kernel_that_takes_the_weights_as_they_are_is_named() -> None:
    found = seen(model("kernel", "kernel"))
    assert (found.names, found.expanded_share) == (("_weight_int8pack_mm",), 0)


def test_of_a_mixture_the_share_is_told() -> None:
    assert seen(model("kernel", "cast", "cast", "kernel")).expanded_share == 0.5


def test_a_model_without_quantized_modules_has_no_share() -> None:
    found = seen(torch.nn.Sequential(torch.nn.Linear(64, 64)))
    assert (found.names, found.expanded_share) == ((), None)


@pytest.mark.parametrize(
    ("quantized", "ran", "share", "dequantized"),
    [
        (0, {"MatMul": 4}, None, False),
        (4, {"MatMulNBits": 4}, 0, False),
        (4, {"MatMulNBits": 3, "MatMul": 1}, 0.25, True),
        (4, {"DequantizeLinear": 4, "MatMul": 4}, 1, True),
        (4, {"MatMulNBits": 5}, 0, False),
    ],
)
def test_a_part_of_the_matrices_that_onnxruntime_expands_counts(
    quantized: int, ran: dict[str, int], share: float | None, dequantized: bool
) -> None:
    weights = Weights(bytes=1, types={}, quantized=quantized, direct=quantized, kernel="MatMulNBits 4 bit")
    found = ran_quantized(weights, ran)
    assert (found.expanded_share, found.dequantized) == (share, dequantized)
