"""Dynosaur: tasks from the metadata of tables, and rows from their cells."""
