"""Pure decisions of delivery: what a server's response means, what to send next, when to wait and when to give up.

No socket, clock or random number lives here: responses, times and jitter are arguments.
"""
