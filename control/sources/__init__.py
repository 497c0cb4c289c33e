"""What control adds to the store by itself: ``endpoints`` (EndpointSlices from pods) and ``defaults`` (namespaces, accounts)."""
