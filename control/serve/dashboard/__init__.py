"""The page's side of control on :15014 (room ``serve``): sign-in, the JSON that the page draws, and its files."""
