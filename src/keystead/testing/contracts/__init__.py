"""One suite a port: plain classes of test methods, which a back end's test file subclasses."""
