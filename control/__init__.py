"""The control service: resources in, proxy configurations out.

Floors: cli | demo > app > serve | ca | sources > translate > world > store > resources.
"""
