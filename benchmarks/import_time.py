"""`import mlflow` against `import mlflow` and this package, side by side in one run: the ratio is what counts.

Usage: python benchmarks/import_time.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs some code."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


def main(rounds: int) -> None:
    """Interleave both sides and print medians and their ratio."""
    plain, ours = [], []
    for _ in range(rounds):
        plain.append(seconds("import mlflow"))
        ours.append(seconds("import mlflow, mlflow_quantgov"))
    left, right = statistics.median(plain), statistics.median(ours)
    print(f"import mlflow {left:.2f} s, with mlflow_quantgov {right:.2f} s, ratio {right / left:.3f} ({rounds} rounds)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
