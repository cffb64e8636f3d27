"""The embedded default: a generated corpus of three tracks and a tiny LLaMA teacher trained on it."""
