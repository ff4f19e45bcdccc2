"""Where protected aliases and stages stand, how they came there, and what rests on them."""
