"""Ternary weights: `NAME.trits` holds -1, 0 and 1 as int8, `NAME.scale` one float per row."""
