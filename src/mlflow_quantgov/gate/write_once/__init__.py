"""Files of registered versions are written once: asked at every write, and read again later."""
