"""Which rows: methods that turn signals into a selection. Methods never see a path, a database, a model or a cluster."""
