"""Two finished runs, item by item: wins, losses, and whether the difference means something."""
