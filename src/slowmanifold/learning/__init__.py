"""The tasks that networks are asked to do, and what gradient descent does to a network."""
