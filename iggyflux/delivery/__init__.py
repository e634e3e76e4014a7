"""Decisions of delivery, pure: what an answer means, what to send next, when to wait, when to give up.

No socket, clock or random number lives here: answers, time and jitter are arguments.
"""
