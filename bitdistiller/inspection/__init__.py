"""Looking into a model, a packed checkpoint or a clip search: a row of numbers per layer, a table and a plot."""
