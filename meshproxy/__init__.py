"""The sidecar. Rooms in the order a request walks through them:

listener -> (tls) -> codec -> filters -> cluster -> upstream -> codec, with ``exchange`` as the corridor, ``policy`` as pure
judgement, ``message`` as the shared vocabulary and ``model`` as the contract with the control service.
``apply`` turns model into a compiled snapshot; ``app`` opens the doors. This file imports nothing, so that importing
``meshproxy.model`` pulls in nothing else.
"""
