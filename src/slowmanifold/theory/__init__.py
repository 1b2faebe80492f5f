"""What can be had on paper, as code."""
