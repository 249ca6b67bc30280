"""Prefill leaders, one a file: which waiting prompts the ranks of an instance compute next."""
