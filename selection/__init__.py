"""Which rows: methods that turn signals into a selection. None sees a path, a database, a model or a cluster."""
