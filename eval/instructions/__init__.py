"""Instructions whose following a program can verify (IFEval, Zhou et al. 2023)."""
