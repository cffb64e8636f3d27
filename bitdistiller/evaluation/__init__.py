"""Perplexity, arithmetic, code and multiple choice: prediction files first, metrics second."""
