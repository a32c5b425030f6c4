"""Other people's environments as ORS environments.

``_gymnasium`` serves any Gymnasium environment, ``_reasoning_gym`` a data set of
reasoning-gym. Only the server's process imports them, and the SDK with them.
"""
