"""How the shipped tiny model is made: its architecture and tokenizer, its lessons, its training."""
