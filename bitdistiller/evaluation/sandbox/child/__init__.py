"""What runs between the evaluation and an untrusted program; started as a script of its own, standard library only."""
