"""An OpenAI-compatible engine that answers as the request tells it to, and remembers exactly when.

The script travels with the request, in the header `x-script` or the body's key `script` (script.py names its fields).
Every answer is made of real wire bytes (answers.py) and played on a clock (play.py); every exchange is logged with its
moments (exchanges.py), readable in-process or at `GET /__log`. Run alone: `python -m support.scripted_engine --port P`.
"""

from support.scripted_engine.exchanges import Exchange
from support.scripted_engine.script import Script
from support.scripted_engine.server import ScriptedEngine

__all__ = ["Exchange", "Script", "ScriptedEngine"]
