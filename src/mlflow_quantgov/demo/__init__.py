"""The demonstration: real small models, real tasks, the whole story on one machine without a network."""
