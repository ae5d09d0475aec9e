"""When and where: command line, recipes, settings, Prefect, Ray, reports."""
