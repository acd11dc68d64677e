"""Settings for all tests."""

import os

from hypothesis import settings

# No deadline: two cores shared with a vault and its fsyncs make single examples slow at random.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")
