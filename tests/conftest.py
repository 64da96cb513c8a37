"""For all tests: no example of a property is too slow, since machines differ; Debian's daemons are found."""

import os

from hypothesis import settings

settings.register_profile("patient", parent=settings.default, deadline=None)
settings.load_profile("patient")

os.environ["PATH"] += ":/usr/sbin:/sbin"  # where those who are not root, or `su`, do not look; as the Makefile has it
