"""The mesh as Kubernetes' objects: settings in, manifests out (room ``install``), quiet.

``operator`` is what may be asked, ``profiles`` what stands under it, ``overlay`` the way from files and ``--set`` to one
tree, ``plan`` the settled answer; ``crds``, ``access``, ``config``, ``control``, ``injector``, ``gateways``, ``webhooks``,
``network`` make the objects and ``manifest`` puts them in order.
"""
