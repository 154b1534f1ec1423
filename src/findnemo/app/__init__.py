"""The web app: a run's captions, any other caption, neurons switched by hand, exports.

It shows results of runs and of the API.

    findnemo.app.launch("run")   # or: findnemo app run

Needs gradio (`pip install "findnemo[app]"`), which is imported when the app starts.

May be imported: the names below and the modules here. May import: runs, exports and what lies under them.
"""

from findnemo.app._server import launch, require_gradio, serve
from findnemo.app.subject import Subject, open_subject

__all__ = ["Subject", "launch", "open_subject", "require_gradio", "serve"]
