"""What a run shows to machines: metrics, health and status over HTTP.

It knows the status by its JSON form alone, asks for it when it is asked, and has a thread of its own: nothing here runs
in the event loop of a run, and no client can keep one waiting.
"""
