"""The `detrank` command, on the Python client.

commands: what can be typed; show: what is printed; waiting: what is seen meanwhile; demo: the showcase.
"""
