"""Quantizers that can be run again from a recorded recipe: `recipe.py` says what is recorded, one file per quantizer."""
