"""Plugins: which checks are there besides our own, and how do they run without being able to harm us?

A plugin is a check class like any other, in a package with an entry point of the group `elemta.checks` or in a file of
the folder `plugins.folder`.  It runs in processes of its own unless `plugins.trusted` names it; docs/plugins.md.
"""

from elemta.plugins.contract import PluginError
from elemta.plugins.finding import Known, Plugin, built_in, find_checks, find_plugins, known_plugins

__all__ = ["Known", "Plugin", "PluginError", "built_in", "find_checks", "find_plugins", "known_plugins"]
