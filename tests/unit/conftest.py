"""Property tests: few examples each, so that the whole tier stays fast; HYPOTHESIS_PROFILE=thorough for many."""

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
