"""The page: what people see in a browser. It asks the public API for everything, as any other client would."""
