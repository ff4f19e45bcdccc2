"""The runtimes that can load an artifact on this machine, behind one interface."""
