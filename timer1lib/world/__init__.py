"""The embedded synthetic world: scenes, their videos, queries, questions and the tiny model's pretraining."""
