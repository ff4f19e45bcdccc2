"""What comes to the store's doors: who asks, which methods there are, and which names are let in."""
