"""The papers' networks, one family a file: equations and parameters, nothing else."""
