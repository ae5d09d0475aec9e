"""New rows: dialogues that yield requests to models and emit accepted or rejected rows."""
