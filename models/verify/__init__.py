"""Telling right replies from wrong ones; shared by synthesis and evaluation."""
