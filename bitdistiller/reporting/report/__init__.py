"""One page of an experiment: tables, plots, generations, cost, and where every number comes from."""
