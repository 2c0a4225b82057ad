"""`python -m support.scripted_engine --port P`."""

from support.scripted_engine.server import main

main()
