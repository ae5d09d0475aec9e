"""Self-Instruct (Wang et al. 2023, arXiv 2212.10560): a pool of tasks that grows from a few that people wrote."""
