"""For all tests: no example of a property is too slow, since machines differ."""

from hypothesis import settings

settings.register_profile("patient", parent=settings.default, deadline=None)
settings.load_profile("patient")
