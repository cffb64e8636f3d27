"""Packed checkpoints: written from base models or trained students, loaded back, proven right."""
