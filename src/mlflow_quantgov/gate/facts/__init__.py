"""What is known about one version before anything is decided, and from where."""
