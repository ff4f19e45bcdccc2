"""One file per container, behind one interface."""
