"""Hypothesis looks for new examples on a developer's machine; CI repeats the same ones, so that red means changed."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
