"""Language models and encoders, local and endpoints, and the dialogues that talk to them."""
