"""The Open Reward Standard without I/O: no socket, no event loop, no clock of its own.

Every decision about the protocol is here, once: what is sent, what may be sent
again, when a result is ambiguous, when a session is lost. An operation is a
generator that yields `Send` and `Pause` and receives an `Outcome`; a driver in
``ors_gym.client`` runs it, blocking or async, and so does a simulator in the tests.
"""
