"""Language models behind an OpenAI-compatible server: what is sent, kept and paid, and what happens when it fails."""
