"""Screws and rods after surgery: where they are, what surrounds them, what failed."""
