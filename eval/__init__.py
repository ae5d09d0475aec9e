"""What was gained: tasks, scores per item, metrics over items, statistics of comparisons."""
