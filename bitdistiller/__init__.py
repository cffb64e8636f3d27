"""Language models in 2 and 3 bits."""
