"""The embedded synthetic world: scenes, their videos, queries and questions. `base` makes the shipped model from it."""
