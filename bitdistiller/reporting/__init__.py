"""Tables and plots from finished results; reads files, never models."""
