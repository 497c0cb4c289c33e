"""Talks to control: ``client`` keeps the stream open, ``state`` judges what comes (pure). Imports model, h11, msgspec only."""
