"""The engine on a CPU: operations and update rules with NumPy, shared among threads."""
