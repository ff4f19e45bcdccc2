"""After shipping: moving an alias, and taking it back."""
